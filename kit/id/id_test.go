package id_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/btcsuite/btcd/btcutil/bech32"

	"github.com/united-containers/ucn/kit/id"
)

func TestNewAtHoldsTimeVersionAndVariant(t *testing.T) {
	at := time.UnixMilli(1_763_712_000_123)
	made, err := id.NewAt(at, bytes.NewReader(bytes.Repeat([]byte{0xff}, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if !made.Time().Equal(at) {
		t.Errorf("time %v, want %v", made.Time(), at)
	}
	if want := "019aa56d-607b-7fff-bfff-ffffffffffff"; made.String() != want {
		t.Errorf("id %s, want %s", made, want)
	}
}

func TestNewAtRefuses(t *testing.T) {
	if _, err := id.NewAt(time.Now(), iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err,
		io.ErrClosedPipe) {
		t.Errorf("no randomness: error %v", err)
	}
	for _, ms := range []int64{-1, 1 << 48} {
		if _, err := id.NewAt(time.UnixMilli(ms), bytes.NewReader(make([]byte, 10))); err == nil {
			t.Errorf("time %d ms was accepted", ms)
		}
	}
}

func TestNewIsUniqueAndOrdered(t *testing.T) {
	seen := map[id.ID]bool{}
	before := time.Now().Truncate(time.Millisecond)
	for range 1000 {
		made := id.New()
		if seen[made] || made.IsZero() || made.Time().Before(before) {
			t.Fatalf("bad id %s", made)
		}
		seen[made], before = true, made.Time()
	}
}

func TestParse(t *testing.T) {
	want := id.New()
	for _, text := range []string{want.String(), strings.ToUpper(want.String())} {
		if got, err := id.Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{
		"", "019aa577", want.String() + "0", strings.ReplaceAll(want.String(), "-", "0"),
		"zzzzzzzz" + want.String()[8:],
	} {
		if _, err := id.Parse(bad); err == nil {
			t.Errorf("Parse(%q) was accepted", bad)
		}
	}
}

func TestTextMarshalling(t *testing.T) {
	want := id.New()
	text, err := want.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var got id.ID
	if err := got.UnmarshalText(text); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	if err := got.UnmarshalText([]byte("x")); err == nil || got != want {
		t.Errorf("bad text: error %v, id %v", err, got)
	}
}

func TestBech32RoundTripAndVector(t *testing.T) {
	var raw [32]byte
	for i := range raw {
		raw[i] = byte(i)
	}
	text := id.Bech32(id.Account, raw)
	want := "ucn1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0s"
	if !strings.HasPrefix(text, want) || len(text) != len(id.Account)+1+52+6 {
		t.Errorf("text %q, want %q and a checksum", text, want)
	}
	for _, form := range []string{text, strings.ToUpper(text)} {
		if got, err := id.ParseBech32(id.Account, form); err != nil || got != raw {
			t.Errorf("ParseBech32(%q) = %x, %v", form, got, err)
		}
	}
}

func TestParseBech32NamesWhatIsWrong(t *testing.T) {
	good := id.Bech32(id.Escrow, [32]byte{1, 2, 3})
	typo := []byte(good)
	typo[20] = map[bool]byte{true: 'p', false: 'q'}[typo[20] == 'q']
	cases := []struct {
		name, text string
		want       error
	}{
		{"another kind", id.Bech32(id.Job, [32]byte{1}), id.ErrPrefix},
		{"another kind mistyped", "ucn1" + good[5:], id.ErrPrefix},
		{"mistyped", string(typo), id.ErrChecksum},
		{"cut", good[:len(good)-1], id.ErrChecksum},
		{"older bech32", encode(t, bech32.Encode, make([]byte, 52)), id.ErrChecksum},
		{"20 bytes", encode(t, bech32.EncodeM, make([]byte, 32)), id.ErrLength},
		{"64 bytes", encode(t, bech32.EncodeM, make([]byte, 103)), id.ErrLength},
		{"padding bits", encode(t, bech32.EncodeM, append(make([]byte, 51), 1)), id.ErrLength},
		{"huge", strings.Repeat("q", 1<<20), id.ErrLength},
		{"empty", "", id.ErrLength},
		{"mixed case", strings.ToUpper(good[:10]) + good[10:], id.ErrText},
		{"no separator", strings.Repeat("q", 60), id.ErrText},
		{"bad character", good[:10] + "b" + good[11:], id.ErrText},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := id.ParseBech32(id.Escrow, c.text); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

// encode writes 5-bit groups under the escrow prefix in a form that Bech32 itself never writes.
func encode(t *testing.T, write func(string, []byte) (string, error), groups []byte) string {
	t.Helper()
	text, err := write(id.Escrow, groups)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestBech32PanicsOnBadPrefix(t *testing.T) {
	for _, hrp := range []string{"", "UCN", "a b", strings.Repeat("a", 64)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("prefix %q was accepted", hrp)
				}
			}()
			_ = id.Bech32(hrp, [32]byte{})
		}()
	}
}

func FuzzParseBech32(f *testing.F) {
	f.Add(id.Bech32(id.Account, [32]byte{}))
	f.Add(id.Bech32(id.Escrow, [32]byte{9}))
	f.Add("ucn1")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := id.ParseBech32(id.Account, text)
		if err != nil {
			return
		}
		if again := id.Bech32(id.Account, raw); again != strings.ToLower(text) {
			t.Errorf("%q reads as %x, which is written %q", text, raw, again)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(id.New().String())
	f.Add("00000000-0000-0000-0000-000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := id.Parse(text)
		if err == nil && parsed.String() != strings.ToLower(text) {
			t.Errorf("%q reads as %s", text, parsed)
		}
	})
}
