package amount_test

import (
	"errors"
	"math"
	"testing"

	"github.com/united-containers/ucn/cli/amount"
)

func TestParse(t *testing.T) {
	tests := []struct {
		text string
		want amount.Amount
		err  error
	}{
		{"0", 0, nil}, {"1", 1_000_000_000, nil}, {"0.000000001", 1, nil},
		{"12.5", 12_500_000_000, nil}, {"3 UCN", 3_000_000_000, nil}, {"3UCN", 3_000_000_000, nil},
		{" 007.10 ", 7_100_000_000, nil}, {"18446744073.709551615", math.MaxUint64, nil},
		{"18446744073.709551616", 0, amount.ErrTooMuch},
		{"99999999999999999999", 0, amount.ErrTooMuch},
		{"0.0000000001", 0, amount.ErrTooFine},
		{"", 0, amount.ErrText}, {"-1", 0, amount.ErrText}, {"+1", 0, amount.ErrText},
		{"1e3", 0, amount.ErrText}, {"1,5", 0, amount.ErrText}, {"1_000", 0, amount.ErrText},
		{".5", 0, amount.ErrText}, {"5.", 0, amount.ErrText}, {"1.2.3", 0, amount.ErrText},
		{"0x10", 0, amount.ErrText}, {"1 grain", 0, amount.ErrText}, {"UCN", 0, amount.ErrText},
		{"１", 0, amount.ErrText}, {"NaN", 0, amount.ErrText},
	}
	for _, test := range tests {
		got, err := amount.Parse(test.text)
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("Parse(%q) = %d, %v, want %d, %v", test.text, got, err, test.want, test.err)
		}
		if err != nil && !errors.Is(err, amount.ErrNotAmount) {
			t.Errorf("Parse(%q): %v does not wrap ErrNotAmount", test.text, err)
		}
	}
}

func TestFormat(t *testing.T) {
	for want, a := range map[string]uint64{
		"0": 0, "0.000000001": 1, "1": 1_000_000_000, "1.5": 1_500_000_000,
		"18446744073.709551615": math.MaxUint64, "10": 10_000_000_000,
	} {
		if got := amount.Format(a); got != want {
			t.Errorf("Format(%d) = %q, want %q", a, got, want)
		}
	}
	if got := amount.Text(amount.Amount(5)); got != "0.000000005 UCN" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"1.5", "0.000000001 UCN", "18446744073.709551615", "-1", "1e9"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := amount.Parse(text)
		if err != nil {
			return
		}
		again, err := amount.Parse(parsed.String())
		if err != nil || again != parsed {
			t.Errorf("%q is %d, written %q, read %d (%v)", text, parsed, parsed, again, err)
		}
	})
}
