package cert_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/keys"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

func now() time.Time { return time.UnixMilli(1_763_712_000_000) }

func key(n byte) sig.PrivateKey { return sig.FromSeed([32]byte(bytes.Repeat([]byte{n}, 32))) }

func operator() keys.Signer { return keys.SingleSigner(key(1)) }

func certificate() cert.Certificate {
	return cert.Certificate{
		Chain: "main", InstanceKey: key(2).Public(), SealKey: keys.SealPublic{9},
		Services: []string{"executor", "storage"}, NotBefore: now(),
		NotAfter: now().Add(30 * 24 * time.Hour), Serial: 7,
	}
}

func issue(t testing.TB, s keys.Signer, c cert.Certificate) []byte {
	t.Helper()
	raw, err := cert.Issue(s, c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sets is a Sets with one answer.
type sets struct {
	set sig.KeySet
	err error
}

func (s sets) KeySet(context.Context, string, sig.AccountID) (sig.KeySet, error) {
	return s.set, s.err
}

func verifier() cert.Verifier {
	return cert.Verifier{Chains: []string{"main"}, Sets: sets{}, Now: now}
}

func TestIssueAndVerify(t *testing.T) {
	want := certificate()
	raw := issue(t, operator(), want)
	want.Operator = operator().Account
	got, named, err := verifier().Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if !got.Covers("executor") || got.Covers("ledger") {
		t.Error("the services are wrong")
	}
	decoded, again, err := cert.Decode(raw)
	if err != nil || again != named || named == (cert.ID{}) || decoded.Serial != 7 {
		t.Errorf("decoded %+v, id %x, %v", decoded, again, err)
	}
	next := certificate()
	next.Serial++
	if _, other, err := cert.Decode(issue(t, operator(), next)); err != nil || other == named {
		t.Errorf("another certificate has the same id, %v", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	good := issue(t, operator(), certificate())
	edit := func(change func(*identityv1.Certificate)) []byte {
		var m identityv1.Certificate
		if err := proto.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	at := func(from, to time.Duration) []byte {
		c := certificate()
		c.NotBefore, c.NotAfter = now().Add(from), now().Add(to)
		return issue(t, operator(), c)
	}
	stranger := edit(func(m *identityv1.Certificate) {
		other := keys.SingleSigner(key(3)).Account
		m.Body.Operator = other[:]
	})
	v := verifier()
	revoking, elsewhere, rotated, away := v, v, v, v
	revoking.Revoked = func(cert.ID) bool { return true }
	elsewhere.Chains = []string{"side"}
	rotated.Sets = sets{set: sig.SingleKey(key(8).Public())}
	away.Sets = sets{err: errors.New("ledger is away")}
	cases := []struct {
		name     string
		verifier cert.Verifier
		raw      []byte
		want     error
	}{
		{"good", v, good, nil},
		{"expired", v, at(-time.Hour, -31*time.Second), cert.ErrExpired},
		{"expired within the skew", v, at(-time.Hour, -29*time.Second), nil},
		{"not yet valid", v, at(31*time.Second, time.Hour), cert.ErrNotYetValid},
		{"revoked", revoking, good, cert.ErrRevoked},
		{"another chain", elsewhere, good, cert.ErrChain},
		{"operator's keys changed", rotated, good, cert.ErrSignature},
		{"chain away", away, good, keys.ErrLookup},
		{"a stranger's", v, stranger, cert.ErrSignature},
		{"service added", v, edit(func(m *identityv1.Certificate) {
			m.Body.Services = append(m.Body.Services, "ledger")
		}), cert.ErrSignature},
		{"another instance key", v, edit(func(m *identityv1.Certificate) {
			other := key(5).Public()
			m.Body.InstanceKey = other[:]
		}), cert.ErrSignature},
		{"no body", v, edit(func(m *identityv1.Certificate) { m.Body = nil }), cert.ErrMalformed},
		{"time overflows", v, edit(func(m *identityv1.Certificate) {
			m.Body.NotAfter = 1<<64 - 1
		}), cert.ErrMalformed},
		{"unknown field", v, append(bytes.Clone(good), 0x78, 1), cert.ErrMalformed},
		{"cut", v, good[:len(good)-1], cert.ErrMalformed},
		{"empty", v, nil, cert.ErrMalformed},
		{"huge", v, make([]byte, cert.MaxSize+1), cert.ErrMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := c.verifier.Verify(t.Context(), c.raw); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	cases := map[string]func(*cert.Certificate){
		"no chain":      func(c *cert.Certificate) { c.Chain = "" },
		"no services":   func(c *cert.Certificate) { c.Services = nil },
		"many services": func(c *cert.Certificate) { c.Services = make([]string, 17) },
		"bad service":   func(c *cert.Certificate) { c.Services = []string{"Ledger"} },
		"service twice": func(c *cert.Certificate) {
			c.Services = slices.Repeat([]string{"dns"}, 2)
		},
		"no seal key":     func(c *cert.Certificate) { c.SealKey = keys.SealPublic{} },
		"no instance key": func(c *cert.Certificate) { c.InstanceKey = sig.PublicKey{} },
		"no serial":       func(c *cert.Certificate) { c.Serial = 0 },
		"no begin":        func(c *cert.Certificate) { c.NotBefore = time.Time{} },
		"too long": func(c *cert.Certificate) {
			c.NotAfter = c.NotBefore.Add(cert.MaxLifetime + time.Millisecond)
		},
	}
	for name, change := range cases {
		c := certificate()
		change(&c)
		if _, err := cert.Issue(operator(), c); !errors.Is(err, cert.ErrClaims) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestText(t *testing.T) {
	raw := issue(t, operator(), certificate())
	got, err := cert.ParseText(append(cert.Text(raw), "\n\n"...))
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%v", err)
	}
	for name, text := range map[string]string{
		"empty": "", "two": string(cert.Text(raw)) + string(cert.Text(raw)),
		"another type": strings.ReplaceAll(string(cert.Text(raw)), "UCN ", ""),
		"huge":         strings.Repeat("x", cert.MaxText+1),
	} {
		if _, err := cert.ParseText([]byte(text)); !errors.Is(err, cert.ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	good := issue(f, operator(), certificate())
	f.Add(good)
	f.Add(good[:40])
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _, err := verifier().Verify(t.Context(), raw)
		if err == nil && !bytes.Equal(raw, good) {
			t.Errorf("forged certificate %x", raw)
		}
	})
}
