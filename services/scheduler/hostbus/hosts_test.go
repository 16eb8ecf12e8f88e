package hostbus_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/hostbus"
)

// house is a broker with one executor, whose answers a test gives.
type house struct {
	hosts *hostbus.Hosts
	host  scheduler.Host
	stop  func() error // of the executor's server

	ask  func(*executorv1.AskRequest) (*executorv1.AskResponse, error)
	task func(*executorv1.TaskRequest, func(*executorv1.TaskUpdate) error) error
	halt func(*executorv1.StopRequest) error
}

func build(t *testing.T) *house {
	t.Helper()
	cfg := broker.Default()
	cfg.Dir, cfg.Services = t.TempDir(), nil
	b, err := broker.New(cfg, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, b)
	operator := eventtest.NewOperator(1)
	executor, asker := operator.Instance(t, "executor"), operator.Instance(t, "scheduler")
	server, err := bus.NewServer(connect(t, b), executor.Identity, bus.Authenticator{
		Instances: cert.Verifier{Chains: []string{eventtest.Chain}},
	}, bus.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{host: scheduler.Host{
		Executor: executor.Key.Public(), Operator: executor.Cert.Operator, Name: "host-1",
		Certificate: executor.Certificate,
	}}
	bus.Unary(server, "executor.v1/Ask",
		func(_ context.Context, r *executorv1.AskRequest) (*executorv1.AskResponse, error) {
			return h.ask(r)
		})
	bus.ServerStream(server, "executor.v1/Task", func(
		_ context.Context, r *executorv1.TaskRequest, send func(*executorv1.TaskUpdate) error,
	) error {
		return h.task(r, send)
	})
	bus.Unary(server, "executor.v1/Stop",
		func(_ context.Context, r *executorv1.StopRequest) (*executorv1.StopResponse, error) {
			return &executorv1.StopResponse{}, h.halt(r)
		})
	h.stop = kittest.Run(t, server)
	proof, err := bus.InstanceProof(asker.Key, asker.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	h.hosts = hostbus.New(bus.NewClient(connect(t, b), proof, bus.ClientOptions{}))
	return h
}

func connect(t *testing.T, b *broker.Broker) *nats.Conn {
	t.Helper()
	conn, err := b.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func revision(t *testing.T) []byte {
	t.Helper()
	key := sig.FromSeed([32]byte{5})
	owner := sig.AccountOfKey(key.Public())
	signed, _, err := job.Sign(key, &jobv1.JobSpec{Owner: owner[:], Chain: "main", Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := canon.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func lease() *marketv1.SignedLease {
	l := tx.Lease{
		Escrow: tx.EscrowID{1}, Subject: make([]byte, 32), Epoch: 3, Payee: sig.AccountID{2},
		AgentKey: sig.FromSeed([32]byte{2}).Public(), Rate: 5, Budget: 7, Trust: 1,
		AckKeys:     []sig.PublicKey{sig.FromSeed([32]byte{3}).Public()},
		ClaimWindow: 86_400_000, PriceHash: tx.Hash{1}, OfferHash: tx.Hash{2}, PlaceBy: 1, Until: 2,
	}
	return &marketv1.SignedLease{Lease: l.PB(), Signature: bytes.Repeat([]byte{4}, 64)}
}

func TestAsk(t *testing.T) {
	h := build(t)
	h.ask = func(r *executorv1.AskRequest) (*executorv1.AskResponse, error) {
		terms := r.GetTerms()
		if len(r.GetRun()) != 16 || len(r.GetAttempt()) != 16 || len(r.GetOfferHash()) != 32 ||
			terms.GetEpoch() != 3 || terms.GetUntil() != 9000 || terms.GetHoldback() != 2 ||
			len(terms.GetAckKeys()) != 1 || len(terms.GetSupersedes()) != 32 ||
			len(r.GetContinues()) != 16 ||
			r.GetRevision().GetRevision().GetSpec().GetName() != "a" {
			t.Errorf("asked %v", r)
		}
		return &executorv1.AskResponse{Lease: lease()}, nil
	}
	got, err := h.hosts.Ask(t.Context(), h.host, scheduler.Ask{
		Revision: revision(t), Continues: scheduler.AttemptID{6}, Terms: scheduler.Terms{
			Epoch: 3, Holdback: 2, Until: time.UnixMilli(9000), AckKeys: []sig.PublicKey{{3}},
			Supersedes: tx.LeaseID{5},
		},
	})
	if err != nil || got.Lease.Epoch != 3 || got.Lease.Budget != 7 {
		t.Errorf("Ask = %+v, %v", got, err)
	}
}

func TestAskAnsweredBadly(t *testing.T) {
	h := build(t)
	answer := func(r *executorv1.AskResponse, err error) func() {
		return func() {
			h.ask = func(*executorv1.AskRequest) (*executorv1.AskResponse, error) { return r, err }
		}
	}
	spoilt := func(spoil func(l *marketv1.SignedLease)) func() {
		l := lease()
		spoil(l)
		return answer(&executorv1.AskResponse{Lease: l}, nil)
	}
	tests := map[string]struct {
		set   func()
		is    error
		words string
	}{
		"declined": {answer(&executorv1.AskResponse{
			Declined: &executorv1.Decline{Code: "CAPACITY", Message: "full\x1b[2J up"},
		}, nil), scheduler.ErrDeclined, "CAPACITY: full[2J up"},
		"nothing to go on with": {answer(&executorv1.AskResponse{
			Declined: &executorv1.Decline{Code: "NOT_CONTINUABLE", Message: "it has ended"},
		}, nil), scheduler.ErrNotContinuable, "declined: there is no program to go on with: " +
			"NOT_CONTINUABLE: it has ended"},
		"a flood of words": {answer(&executorv1.AskResponse{
			Declined: &executorv1.Decline{Message: strings.Repeat("x", 400<<10)},
		}, nil), scheduler.ErrDeclined, "xxx"},
		"fault": {
			answer(nil, fault.New(fault.PermissionDenied, "NOT_YOURS", "go away")),
			scheduler.ErrDeclined, "NOT_YOURS: go away",
		},
		"no answer in it": {
			answer(&executorv1.AskResponse{}, nil), scheduler.ErrBadLease, "",
		},
		"short signature": {
			spoilt(func(l *marketv1.SignedLease) { l.Signature = l.Signature[1:] }),
			scheduler.ErrBadLease, "63 bytes",
		},
		"short escrow": {
			spoilt(func(l *marketv1.SignedLease) { l.Lease.Escrow = l.Lease.Escrow[1:] }),
			scheduler.ErrBadLease, "",
		},
		"no agent key": {
			spoilt(func(l *marketv1.SignedLease) { l.Lease.AgentKey = nil }),
			scheduler.ErrBadLease, "",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.set()
			_, err := h.hosts.Ask(t.Context(), h.host, scheduler.Ask{
				Revision: revision(t), Continues: scheduler.AttemptID{6},
			})
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.words) ||
				len(err.Error()) > 600 {
				t.Errorf("Ask = %.700v, want %v with %q", err, tt.is, tt.words)
			}
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	h := build(t)
	gate := make(chan struct{})
	h.ask = func(*executorv1.AskRequest) (*executorv1.AskResponse, error) {
		<-gate
		return nil, errors.New("too late")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := h.hosts.Ask(ctx, h.host, scheduler.Ask{Revision: revision(t)})
	if !errors.Is(err, scheduler.ErrUnreachable) || errors.Is(err, scheduler.ErrAbsent) {
		t.Errorf("a silent host: %v, want ErrUnreachable alone", err)
	}
	close(gate)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	_, err = h.hosts.Ask(t.Context(), h.host, scheduler.Ask{Revision: revision(t)})
	if !errors.Is(err, scheduler.ErrUnreachable) || !errors.Is(err, scheduler.ErrAbsent) {
		t.Errorf("a host that is not there: %v, want ErrUnreachable and ErrAbsent", err)
	}
	h.host.Certificate = []byte("garbage")
	if _, err := h.hosts.Ask(t.Context(), h.host, scheduler.Ask{Revision: revision(t)}); err == nil {
		t.Error("a host without a certificate was asked")
	}
}

func TestDeliver(t *testing.T) {
	status := func(s jobv1.State, spoil func(*jobv1.AttemptStatus)) *executorv1.TaskUpdate {
		m := &jobv1.AttemptStatus{
			Job: make([]byte, 32), Run: make([]byte, 16), Attempt: make([]byte, 16), State: s,
			Reason: "said", Time: 5000,
		}
		if spoil != nil {
			spoil(m)
		}
		return &executorv1.TaskUpdate{Kind: &executorv1.TaskUpdate_Status{Status: m}}
	}
	outcome := func(r jobv1.EndReason) func(*jobv1.AttemptStatus) {
		return func(m *jobv1.AttemptStatus) {
			m.Outcome = &jobv1.Outcome{
				Reason: r, Message: "exit 0", Usage: &jobv1.Usage{WallMs: 9},
			}
		}
	}
	note := &executorv1.TaskUpdate{
		Kind: &executorv1.TaskUpdate_Note{Note: &jobv1.SignedNote{Final: true}},
	}
	done := jobv1.EndReason_END_REASON_COMPLETED
	tests := map[string]struct {
		updates []*executorv1.TaskUpdate
		end     error
		want    *scheduler.Report
		is      error
	}{
		"it is there": {
			updates: []*executorv1.TaskUpdate{status(jobv1.State_STATE_LEASED, nil)},
		},
		"it runs": {
			updates: []*executorv1.TaskUpdate{status(jobv1.State_STATE_RUNNING, nil)},
			want:    &scheduler.Report{State: scheduler.Running},
		},
		"it is held": {
			updates: []*executorv1.TaskUpdate{
				status(jobv1.State_STATE_RUNNING, func(m *jobv1.AttemptStatus) { m.HeldUntil = 9000 }),
			},
			want: &scheduler.Report{State: scheduler.Running, HeldUntil: time.UnixMilli(9000)},
		},
		"it is over": {
			updates: []*executorv1.TaskUpdate{note, status(jobv1.State_STATE_ENDED, outcome(done))},
			want:    &scheduler.Report{State: scheduler.Ended, End: scheduler.Completed, Ran: true},
		},
		"only notes": {updates: []*executorv1.TaskUpdate{note}},
		"of another attempt": {updates: []*executorv1.TaskUpdate{
			status(jobv1.State_STATE_RUNNING, func(m *jobv1.AttemptStatus) { m.Attempt[3] = 1 }),
		}},
		"ended for no reason": {updates: []*executorv1.TaskUpdate{
			status(jobv1.State_STATE_ENDED, outcome(77)),
		}},
		"forgotten": {
			end: fault.New(fault.NotFound, "NO_ATTEMPT", "none"), is: scheduler.ErrForgotten,
		},
		"refused": {
			end: fault.New(fault.FailedPrecondition, "SECRETS", "none"), is: scheduler.ErrDeclined,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := build(t)
			h.task = func(
				r *executorv1.TaskRequest, send func(*executorv1.TaskUpdate) error,
			) error {
				if r.GetStorageToken() != "token" || len(r.GetLease()) != 32 {
					t.Errorf("delivered %v", r)
				}
				for _, u := range tt.updates {
					if err := send(u); err != nil {
						return err
					}
				}
				return tt.end
			}
			got, err := h.hosts.Deliver(t.Context(), h.host, scheduler.Task{
				Revision: revision(t), StorageToken: "token",
			})
			if !errors.Is(err, tt.is) || (got == nil) != (tt.want == nil) {
				t.Fatalf("Deliver = %+v, %v, want %+v, %v", got, err, tt.want, tt.is)
			}
			if w := tt.want; w != nil && (got.State != w.State || got.End != w.End ||
				got.Ran != w.Ran || !got.HeldUntil.Equal(w.HeldUntil) ||
				got.Executor != h.host.Executor || len(got.Raw) == 0) {
				t.Errorf("Deliver = %+v, want %+v", got, w)
			}
		})
	}
}

func TestStop(t *testing.T) {
	h := build(t)
	h.halt = func(r *executorv1.StopRequest) error {
		if r.GetGraceMs() != 10_000 || r.GetReason() != "enough" || len(r.GetAttempt()) != 16 {
			t.Errorf("stopped with %v", r)
		}
		return nil
	}
	s := scheduler.Stop{Reason: "enough", Grace: 10 * time.Second}
	if err := h.hosts.Stop(t.Context(), h.host, s); err != nil {
		t.Error(err)
	}
	h.halt = func(*executorv1.StopRequest) error { return errors.New("broken") }
	if err := h.hosts.Stop(t.Context(), h.host, s); err == nil {
		t.Error("a stop that failed is taken for done")
	}
}
