package bus_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// attacker writes requests by hand.
type attacker struct {
	*house
	key   keys.SealKey
	calls atomic.Int64 // how often the handler ran
	echo  bus.Target
}

func newAttacker(t *testing.T) *attacker {
	t.Helper()
	a := &attacker{house: build(t, bus.Options{})}
	a.stop()
	server, err := bus.NewServer(a.connect(t), a.executor.Identity, bus.Authenticator{
		Tokens: &token.Verifier{
			Audience: a.executor.Cert.Operator, Chains: []string{eventtest.Chain},
		},
		Instances: refuseAll{},
	}, bus.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bus.Unary(server, "Echo", func(_ context.Context, req *text) (*text, error) {
		a.calls.Add(1)
		return req, nil
	})
	background(t, server.Run)
	a.echo = server.Target()
	if a.key, err = keys.NewSealKey(); err != nil {
		t.Fatal(err)
	}
	return a
}

// body returns a request that is good in itself.
func (a *attacker) body() *busv1.RequestBody {
	public := a.key.Public()
	id := subject.Reply()
	return &busv1.RequestBody{
		Id: []byte(id[len(id)-16:]), Receiver: a.echo.Instance[:], Method: "Echo",
		NotAfter: uint64(time.Now().Add(time.Minute).UnixMilli()),
		ReplyTo:  subject.Reply(), ReplyKey: public[:],
	}
}

func (a *attacker) tokenFor(t *testing.T, audience sig.AccountID) string {
	t.Helper()
	text, err := token.Issue(a.user, token.Claims{
		Chain: eventtest.Chain, Audience: audience, Scopes: []string{"job"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func pack(t *testing.T, to keys.SealPublic, r *busv1.Request) []byte {
	t.Helper()
	raw, err := canon.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	data, err := keys.Seal(to, "ucn/request/v1", raw)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := canon.Marshal(&busv1.Sealed{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// send publishes a sealed request and returns the reason of the answer: "" for success, "silence"
// for none.
func (a *attacker) send(t *testing.T, b *busv1.RequestBody, sealed []byte) fault.Reason {
	t.Helper()
	sub, err := a.conn.SubscribeSync(b.ReplyTo)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := a.conn.Publish(a.echo.RPC(), sealed); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(150 * time.Millisecond)
	if errors.Is(err, nats.ErrTimeout) {
		return "silence"
	}
	if err != nil {
		t.Fatal(err)
	}
	var wrapped busv1.Sealed
	var reply busv1.Reply
	var status spb.Status
	if err := canon.Unmarshal(m.Data, &wrapped); err != nil {
		t.Fatal(err)
	}
	raw, err := keys.Open(a.key, "ucn/reply/v1", wrapped.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(canon.Unmarshal(raw, &reply),
		proto.Unmarshal(reply.GetBody().GetError(), &status)); err != nil {
		t.Fatal(err)
	}
	for _, detail := range status.Details {
		var info errdetails.ErrorInfo
		if detail.UnmarshalTo(&info) == nil {
			return fault.Reason(info.Reason)
		}
	}
	return ""
}

func TestBadRequests(t *testing.T) {
	a := newAttacker(t)
	good := a.tokenFor(t, a.executor.Cert.Operator)
	eve := eventtest.NewOperator(66).Instance(t, "executor")
	certificate := new(identityv1.Certificate)
	if err := canon.Unmarshal(eve.Certificate, certificate); err != nil {
		t.Fatal(err)
	}
	byToken := func(text string) func(*busv1.Request) {
		return func(r *busv1.Request) { r.Proof = &busv1.Request_Token{Token: text} }
	}
	cases := []struct {
		name   string
		change func(*busv1.RequestBody)
		prove  func(*busv1.Request)
		to     keys.SealPublic
		want   fault.Reason
	}{
		{"good", nil, byToken(good), a.echo.Seal, ""},
		{"wrong receiver", func(b *busv1.RequestBody) { b.Receiver = eve.Cert.InstanceKey[:] },
			byToken(good), a.echo.Seal, "silence"},
		{"sealed to another key", nil, byToken(good), eve.Cert.SealKey, "silence"},
		{"expired", func(b *busv1.RequestBody) {
			b.NotAfter = uint64(time.Now().Add(-time.Minute).UnixMilli())
		}, byToken(good), a.echo.Seal, "silence"},
		{"valid too long", func(b *busv1.RequestBody) {
			b.NotAfter = uint64(time.Now().Add(time.Hour).UnixMilli())
		}, byToken(good), a.echo.Seal, bus.ReasonNotAfter},
		{"no proof", nil, func(*busv1.Request) {}, a.echo.Seal, bus.ReasonProofMissing},
		{"token of another audience", nil, byToken(a.tokenFor(t, eve.Cert.Operator)), a.echo.Seal,
			rpc.ReasonWrongAudience},
		{"junk token", nil, byToken("junk"), a.echo.Seal, rpc.ReasonTokenMalformed},
		{"stranger's certificate", nil, func(r *busv1.Request) {
			r.Proof = &busv1.Request_Instance{Instance: &busv1.InstanceProof{
				Certificate: certificate, Signature: make([]byte, 64),
			}}
		}, a.echo.Seal, bus.ReasonProofInvalid},
		{"reply elsewhere", func(b *busv1.RequestBody) {
			b.ReplyTo = a.echo.Event("job", "attempt.changed")
		}, byToken(good), a.echo.Seal, "silence"},
		{"short id", func(b *busv1.RequestBody) { b.Id = b.Id[1:] }, byToken(good), a.echo.Seal,
			"silence"},
		{"short reply key", func(b *busv1.RequestBody) { b.ReplyKey = b.ReplyKey[1:] },
			byToken(good), a.echo.Seal, "silence"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := a.body()
			if c.change != nil {
				c.change(b)
			}
			r := &busv1.Request{Body: b}
			c.prove(r)
			before := a.calls.Load()
			if got := a.send(t, b, pack(t, c.to, r)); got != c.want {
				t.Errorf("answer %q, want %q", got, c.want)
			}
			if ran := a.calls.Load() - before; (ran != 0) != (c.want == "") {
				t.Errorf("the handler ran %d times", ran)
			}
		})
	}
}

func TestReplayedAndAlteredRequests(t *testing.T) {
	a := newAttacker(t)
	b := a.body()
	r := &busv1.Request{Body: b, Proof: &busv1.Request_Token{
		Token: a.tokenFor(t, a.executor.Cert.Operator),
	}}
	sealed := pack(t, a.echo.Seal, r)
	for _, at := range []int{0, 10, 40, len(sealed) - 1} {
		altered := slices.Clone(sealed)
		altered[at] ^= 1
		if got := a.send(t, b, altered); got != "silence" {
			t.Errorf("altered at %d: answer %q", at, got)
		}
	}
	if got := a.send(t, b, sealed); got != "" {
		t.Errorf("first: answer %q", got)
	}
	for _, again := range [][]byte{sealed, pack(t, a.echo.Seal, r)} {
		if got := a.send(t, b, again); got != "silence" {
			t.Errorf("replayed: answer %q", got)
		}
	}
	if n := a.calls.Load(); n != 1 {
		t.Errorf("the handler ran %d times", n)
	}
}

func TestInstanceProofMustBeSigned(t *testing.T) {
	h := build(t, bus.Options{})
	scheduler := eventtest.NewOperator(2).Instance(t, "scheduler")
	eve := eventtest.NewOperator(3).Instance(t, "scheduler")
	if _, err := bus.InstanceProof(eve.Key, scheduler.Certificate); err == nil {
		t.Error("a proof with another's certificate was made")
	}
	a := &attacker{house: h, echo: h.server.Target()}
	var err error
	if a.key, err = keys.NewSealKey(); err != nil {
		t.Fatal(err)
	}
	certificate := new(identityv1.Certificate)
	if err := canon.Unmarshal(scheduler.Certificate, certificate); err != nil {
		t.Fatal(err)
	}
	b := a.body()
	raw, err := canon.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	signature := eve.Key.Sign(sig.Preimage(sig.DomainRequest, nil, raw))
	r := &busv1.Request{Body: b, Proof: &busv1.Request_Instance{Instance: &busv1.InstanceProof{
		Certificate: certificate, Signature: signature[:],
	}}}
	if got := a.send(t, b, pack(t, a.echo.Seal, r)); got != bus.ReasonProofInvalid {
		t.Errorf("answer %q, want %q", got, bus.ReasonProofInvalid)
	}
}

func TestEmptyProofs(t *testing.T) {
	h := build(t, bus.Options{})
	a := &attacker{house: h, echo: h.server.Target()}
	var err error
	if a.key, err = keys.NewSealKey(); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*busv1.InstanceProof{
		"nothing": {}, "no body": {Certificate: &identityv1.Certificate{}},
		"empty body": {Certificate: &identityv1.Certificate{Body: &identityv1.CertificateBody{}},
			Signature: make([]byte, 64)},
	} {
		b := a.body()
		r := &busv1.Request{Body: b, Proof: &busv1.Request_Instance{Instance: p}}
		if got := a.send(t, b, pack(t, a.echo.Seal, r)); got != bus.ReasonProofInvalid {
			t.Errorf("%s: answer %q", name, got)
		}
	}
}

// TestForgedReplies: somebody who even reads the request, but lacks the instance's key, answers.
func TestForgedReplies(t *testing.T) {
	h := build(t, bus.Options{})
	h.stop()
	eve := eventtest.NewOperator(66).Instance(t, "executor")
	target := h.server.Target()
	cases := []struct {
		name   string
		key    sig.PrivateKey
		change func(*busv1.ReplyBody)
		good   bool
	}{
		{"true", h.executor.Key, func(*busv1.ReplyBody) {}, true},
		{"another instance's", eve.Key, func(*busv1.ReplyBody) {}, false},
		{"to another request", h.executor.Key, func(b *busv1.ReplyBody) {
			b.Request = make([]byte, 16)
		}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sub, err := h.conn.Subscribe(target.RPC(), func(m *nats.Msg) {
				answer(t, h.conn, m.Data, h.executor.Seal, func(b *busv1.ReplyBody) sig.PrivateKey {
					c.change(b)
					return c.key
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sub.Unsubscribe() }()
			if err := h.conn.Flush(); err != nil {
				t.Fatal(err)
			}
			client := h.client(t, bus.ClientOptions{Timeout: 200 * time.Millisecond})
			err = client.Call(t.Context(), target, "Echo", &text{}, &text{})
			if c.good && err != nil {
				t.Errorf("error %v", err)
			}
			if !c.good && (!errors.Is(err, fault.DeadlineExceeded) ||
				!errors.Is(err, bus.ErrForged)) {
				t.Errorf("error %v, want a deadline because of forged replies", err)
			}
		})
	}
}

// answer opens a request and sends the last reply to it, changed and signed as sign says.
func answer(
	t *testing.T, conn *nats.Conn, sealed []byte, key keys.SealKey,
	sign func(*busv1.ReplyBody) sig.PrivateKey,
) {
	var wrapped busv1.Sealed
	var r busv1.Request
	if err := canon.Unmarshal(sealed, &wrapped); err != nil {
		t.Error(err)
		return
	}
	raw, err := keys.Open(key, "ucn/request/v1", wrapped.Data)
	if err := errors.Join(err, canon.Unmarshal(raw, &r)); err != nil {
		t.Error(err)
		return
	}
	b := &busv1.ReplyBody{Request: r.Body.Id, Seq: 1, Last: true}
	by := sign(b)
	body, err := canon.Marshal(b)
	if err != nil {
		t.Error(err)
		return
	}
	signature := by.Sign(sig.Preimage(sig.DomainReply, nil, body))
	reply, err := canon.Marshal(&busv1.Reply{Body: b, Signature: signature[:]})
	if err != nil {
		t.Error(err)
		return
	}
	data, err := keys.Seal(keys.SealPublic(r.Body.ReplyKey), "ucn/reply/v1", reply)
	if err != nil {
		t.Error(err)
		return
	}
	out, err := canon.Marshal(&busv1.Sealed{Data: data})
	if err := errors.Join(err, conn.Publish(r.Body.ReplyTo, out)); err != nil {
		t.Error(err)
	}
}

func TestLostRepliesAreNoticed(t *testing.T) {
	h := build(t, bus.Options{})
	h.stop()
	target := h.server.Target()
	seq := uint64(0)
	sub, err := h.conn.Subscribe(target.RPC(), func(m *nats.Msg) {
		for _, seq = range []uint64{1, 1, 3} { // one comes twice, 2 is lost
			answer(t, h.conn, m.Data, h.executor.Seal, func(b *busv1.ReplyBody) sig.PrivateKey {
				b.Seq, b.Last = seq, false
				b.Payload, _ = canon.Marshal(wrapperspb.String("x"))
				return h.executor.Key
			})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	r, err := h.client(t, bus.ClientOptions{}).Stream(t.Context(), target, "Count", &text{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Next(&text{}); err != nil {
		t.Fatal(err)
	}
	err = r.Next(&text{})
	var gap *bus.GapError
	if !errors.As(err, &gap) || gap.Last != 1 || gap.Got != 3 || !errors.Is(err, bus.ReasonReplyLost) {
		t.Errorf("error %v, want a gap between 1 and 3", err)
	}
	if err := sub.Unsubscribe(); err != nil { // before Close cancels at this handler
		t.Fatal(err)
	}
	r.Close()
}

// refuseAll judges no certificate good.
type refuseAll struct{}

func (refuseAll) Verify(context.Context, []byte) (cert.Certificate, cert.ID, error) {
	return cert.Certificate{}, cert.ID{}, cert.ErrChain
}
