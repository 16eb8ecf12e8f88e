package token_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// now is the time of every test.
func now() time.Time { return time.UnixMilli(1_763_712_000_000) }

func signer(n byte) keys.Signer {
	return keys.SingleSigner(sig.FromSeed([32]byte(bytes.Repeat([]byte{n}, 32))))
}

func claims() token.Claims {
	return token.Claims{
		Chain: "main", Audience: signer(2).Account, Scopes: []string{"job", "file:read"},
		NotBefore: now(), NotAfter: now().Add(time.Hour),
	}
}

func issue(t testing.TB, s keys.Signer, c token.Claims) string {
	t.Helper()
	text, err := token.Issue(s, c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func verifier() *token.Verifier {
	return &token.Verifier{
		Audience: signer(2).Account, Chains: []string{"main"}, Sets: &sets{}, Now: now,
	}
}

// sets counts how often it is asked and gives one answer.
type sets struct {
	set   sig.KeySet
	err   error
	asked atomic.Int64
}

func (s *sets) KeySet(context.Context, string, sig.AccountID) (sig.KeySet, error) {
	s.asked.Add(1)
	return s.set, s.err
}

func TestIssueAndVerify(t *testing.T) {
	want := claims()
	text := issue(t, signer(1), want)
	want.Account = signer(1).Account
	if len(text) > 400 {
		t.Errorf("an ordinary token has %d characters", len(text))
	}
	got, err := token.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	caller, err := verifier().Authenticate(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	if caller.Account != want.Account || !slices.Equal(caller.Scopes, want.Scopes) ||
		!caller.NotAfter.Equal(want.NotAfter.Add(token.Skew)) {
		t.Errorf("caller %+v", caller)
	}
}

// refusal is a token and the reason it is refused with, "" for none.
type refusal struct {
	name, text string
	reason     fault.Reason
}

func TestVerifyJudgesClaims(t *testing.T) {
	shift := func(from, to time.Duration) string {
		c := claims()
		c.NotBefore, c.NotAfter = now().Add(from), now().Add(to)
		return issue(t, signer(1), c)
	}
	with := func(change func(*token.Claims)) string {
		c := claims()
		change(&c)
		return issue(t, signer(1), c)
	}
	wantRefused(t, []refusal{
		{"expired", shift(-2*time.Hour, -31*time.Second), rpc.ReasonTokenExpired},
		{"expired within the skew", shift(-2*time.Hour, -29*time.Second), ""},
		{"not yet valid", shift(31*time.Second, time.Hour), token.ReasonNotYetValid},
		{"early within the skew", shift(29*time.Second, time.Hour), ""},
		{"another operator", with(func(c *token.Claims) { c.Audience[0]++ }),
			rpc.ReasonWrongAudience},
		{"another chain", with(func(c *token.Claims) { c.Chain = "side" }),
			token.ReasonWrongChain},
	})
}

func TestVerifyRefusesForgedAndBrokenBytes(t *testing.T) {
	good := issue(t, signer(1), claims())
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(raw)
	changed[len(changed)-1] ^= 1 // of the signature
	wantRefused(t, []refusal{
		{"signature changed", encode(changed), rpc.ReasonBadSignature},
		{"another's account", resign(t, raw, func(m *identityv1.Token) {
			other := signer(3).Account
			m.Body.Account = other[:]
		}), rpc.ReasonBadSignature},
		{"scope added", resign(t, raw, func(m *identityv1.Token) {
			m.Body.Scopes = append(m.Body.Scopes, "wallet")
		}), rpc.ReasonBadSignature},
		{"no signature", resign(t, raw, func(m *identityv1.Token) { m.Signature = nil }),
			rpc.ReasonTokenMalformed},
		{"lifetime too long", resign(t, raw, func(m *identityv1.Token) {
			m.Body.NotAfter = m.Body.NotBefore + 25*3600*1000
		}), rpc.ReasonTokenMalformed},
		{"no beginning", resign(t, raw, func(m *identityv1.Token) { m.Body.NotBefore = 0 }),
			rpc.ReasonTokenMalformed},
		{"time overflows", resign(t, raw, func(m *identityv1.Token) {
			m.Body.NotAfter = 1<<64 - 1
		}), rpc.ReasonTokenMalformed},
		{"short account", resign(t, raw, func(m *identityv1.Token) {
			m.Body.Account = m.Body.Account[:31]
		}), rpc.ReasonTokenMalformed},
		{"unknown field", encode(append(bytes.Clone(raw), 0x78, 1)), rpc.ReasonTokenMalformed},
		{"field repeated", encode(append(bytes.Clone(raw), raw...)), rpc.ReasonTokenMalformed},
		{"cut", encode(raw[:len(raw)-1]), rpc.ReasonTokenMalformed},
		{"padding", good + "=", rpc.ReasonTokenMalformed},
		{"line break", good[:10] + "\n" + good[10:], rpc.ReasonTokenMalformed},
		{"empty", "", rpc.ReasonTokenMalformed},
		{"huge", strings.Repeat("A", token.MaxText+1), rpc.ReasonTokenMalformed},
	})
}

// wantRefused asks a fresh verifier twice about every token: the second answer may come from its
// memory.
func wantRefused(t *testing.T, cases []refusal) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := verifier()
			for range 2 {
				_, err := v.Authenticate(t.Context(), c.text)
				if fault.ReasonOf(err) != c.reason {
					t.Fatalf("error %v, want reason %q", err, c.reason)
				}
				if err != nil && !errors.Is(err, fault.Unauthenticated) {
					t.Errorf("kind %s", fault.KindOf(err))
				}
			}
		})
	}
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

// resign changes the message and encodes it again without signing it anew.
func resign(t *testing.T, raw []byte, change func(*identityv1.Token)) string {
	t.Helper()
	var m identityv1.Token
	if err := proto.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	change(&m)
	changed, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	return encode(changed)
}

func TestIssueRefuses(t *testing.T) {
	cases := map[string]func(*token.Claims){
		"no audience":  func(c *token.Claims) { c.Audience = sig.AccountID{} },
		"no chain":     func(c *token.Claims) { c.Chain = "" },
		"long chain":   func(c *token.Claims) { c.Chain = strings.Repeat("x", 65) },
		"no scopes":    func(c *token.Claims) { c.Scopes = nil },
		"many scopes":  func(c *token.Claims) { c.Scopes = make([]string, 65) },
		"bad scope":    func(c *token.Claims) { c.Scopes = []string{"a b"} },
		"no begin":     func(c *token.Claims) { c.NotBefore = time.Time{} },
		"ends at once": func(c *token.Claims) { c.NotAfter = c.NotBefore },
		"over a day":   func(c *token.Claims) { c.NotAfter = c.NotBefore.Add(24*time.Hour + 1e6) },
		"does not fit": func(c *token.Claims) {
			c.Scopes = slices.Repeat([]string{strings.Repeat("x", token.MaxScope)}, 64)
		},
	}
	for name, change := range cases {
		c := claims()
		change(&c)
		if _, err := token.Issue(signer(1), c); !errors.Is(err, token.ErrClaims) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	lacking := signer(1)
	lacking.Keys = nil
	if _, err := token.Issue(lacking, claims()); !errors.Is(err, sig.ErrNotEnoughSigner) {
		t.Errorf("without keys: error %v", err)
	}
}

func TestValidScope(t *testing.T) {
	for scope, want := range map[string]bool{
		"job": true, "file:read:bafkREI-_.9": true, "": false, ":a": false, "a:": false,
		"a::b": false, "a b": false, "ä": false, "a,b": false, "*": false,
		strings.Repeat("x", token.MaxScope+1): false,
	} {
		if token.ValidScope(scope) != want {
			t.Errorf("ValidScope(%q) = %v", scope, !want)
		}
	}
}

func TestChangedKeysEndAToken(t *testing.T) {
	at := now()
	chain := &sets{}
	v := verifier()
	v.Sets, v.Now = chain, func() time.Time { return at }
	text := issue(t, signer(1), claims())
	for range 3 {
		if _, err := v.Authenticate(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if n := chain.asked.Load(); n != 1 {
		t.Errorf("the chain was asked %d times for one token", n)
	}
	chain.set = signer(7).Set // the account's keys are changed
	at = at.Add(token.CacheTime + time.Millisecond)
	if _, err := v.Authenticate(t.Context(), text); !errors.Is(err, rpc.ReasonBadSignature) {
		t.Errorf("with the old keys: error %v", err)
	}
	changed := signer(7)
	changed.Account = signer(1).Account
	if _, err := v.Authenticate(t.Context(), issue(t, changed, claims())); err != nil {
		t.Errorf("with the new keys: %v", err)
	}
}

func TestChainAwayRefusesButSaysSo(t *testing.T) {
	v := verifier()
	v.Sets = &sets{err: errors.New("connection refused by 10.0.0.1")}
	_, err := v.Authenticate(t.Context(), issue(t, signer(1), claims()))
	if !errors.Is(err, fault.Unavailable) || !errors.Is(err, token.ReasonKeysUnknown) ||
		strings.Contains(fault.From(err).Message(), "10.0.0.1") {
		t.Errorf("error %v", err)
	}
}

func TestCacheIsBoundedAndHonoursExpiry(t *testing.T) {
	at := now()
	v := verifier()
	v.Now = func() time.Time { return at }
	c := claims()
	c.NotAfter = c.NotBefore.Add(10 * time.Second)
	text := issue(t, signer(1), c)
	if _, err := v.Authenticate(t.Context(), text); err != nil {
		t.Fatal(err)
	}
	at = at.Add(10*time.Second + token.Skew + time.Millisecond)
	if _, err := v.Authenticate(t.Context(), text); !errors.Is(err, rpc.ReasonTokenExpired) {
		t.Errorf("a remembered token outlived itself: %v", err)
	}
}

func TestSourceRenewsInTime(t *testing.T) {
	at := now()
	operator := signer(2).Account
	source := &token.Source{
		Signer: signer(1), Chain: "main", Scopes: []string{"job"},
		Audience: map[string]sig.AccountID{"ledger": operator, "local": {}},
		Now:      func() time.Time { return at },
	}
	get := func(service string) string {
		t.Helper()
		text, err := source.Token(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	first := get("ledger")
	if get("ledger") != first {
		t.Error("a second token was made at once")
	}
	if get("dns") != "" || get("local") != "" {
		t.Error("a service without operator got a token")
	}
	source.AnyService = operator
	if get("dns") != first {
		t.Error("one operator got two tokens")
	}
	if text, err := source.TokenFor(t.Context(), operator); err != nil || text != first {
		t.Errorf("TokenFor gave another token, %v", err)
	}
	at = at.Add(token.SourceLifetime - time.Minute)
	second := get("ledger")
	if second == first {
		t.Error("the token was not renewed before its end")
	}
	v := verifier()
	v.Now = func() time.Time { return at }
	if _, err := v.Authenticate(t.Context(), second); err != nil {
		t.Error(err)
	}
	source.Scopes, source.AnyService = nil, signer(5).Account
	if _, err := source.Token(t.Context(), "other"); !errors.Is(err, fault.InvalidArgument) {
		t.Errorf("no scopes: error %v", err)
	}
}

func TestVerifierIsSafeForConcurrentUse(t *testing.T) {
	v := verifier()
	done := make(chan error)
	texts := make([]string, 4)
	for i := range texts {
		texts[i] = issue(t, signer(byte(10+i)), claims())
	}
	const workers = 8
	for range workers {
		go func() {
			var err error
			for i := range 40 {
				_, one := v.Authenticate(t.Context(), texts[i%len(texts)])
				err = errors.Join(err, one)
			}
			done <- err
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func FuzzAuthenticate(f *testing.F) {
	good := issue(f, signer(1), claims())
	f.Add(good)
	f.Add(good[:len(good)-4])
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		caller, err := verifier().Authenticate(t.Context(), text)
		if err == nil && (text != good || caller.Account != signer(1).Account) {
			t.Errorf("forged %q speaks for %x", text, caller.Account)
		}
		if err != nil && !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("error %v is not Unauthenticated", err)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	text := issue(b, signer(1), claims())
	for _, remembered := range []bool{true, false} {
		b.Run(fmt.Sprintf("remembered=%v", remembered), func(b *testing.B) {
			v := verifier()
			for b.Loop() {
				if !remembered {
					v = verifier()
				}
				if _, err := v.Authenticate(b.Context(), text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
