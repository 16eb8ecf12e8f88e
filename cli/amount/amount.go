// Package amount reads and writes money as people do: UCN with up to nine decimals, exactly. One
// UCN is 10^9 grains.
package amount

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/united-containers/ucn/chain/tx"
)

// Decimals is how many digits may follow the point.
const Decimals = 9

// maxText bounds the text that is looked at: 2^64 grains have 11 digits before the point.
const maxText = 40

const grains = 1_000_000_000

// What can be wrong with the text of an amount.
var (
	ErrText      = errors.New(`write an amount as in 12 or 0.5 or "3 UCN"`)
	ErrTooFine   = errors.New("an amount has at most 9 decimals")
	ErrTooMuch   = errors.New("more than all money there can be")
	ErrNotAmount = errors.New("not an amount")
)

// Amount is money in grains that reads and writes itself as UCN, for flags and files.
type Amount tx.Grains

// Parse reads digits, an optional point and up to nine decimals, and an optional "UCN". No signs,
// no exponents, no separators: what is not exact is refused. Errors wrap ErrNotAmount.
func Parse(text string) (Amount, error) {
	number := strings.TrimSpace(text)
	if len(number) > maxText {
		return 0, wrong(text, ErrText)
	}
	if cut, ok := strings.CutSuffix(number, "UCN"); ok {
		number = strings.TrimRight(cut, " ")
	}
	whole, decimals, point := strings.Cut(number, ".")
	switch {
	case !digits(whole) || point && !digits(decimals):
		return 0, wrong(text, ErrText)
	case len(decimals) > Decimals:
		return 0, wrong(text, ErrTooFine)
	}
	all := whole + decimals + strings.Repeat("0", Decimals-len(decimals))
	value, err := strconv.ParseUint(all, 10, 64)
	if err != nil {
		return 0, wrong(text, ErrTooMuch)
	}
	return Amount(value), nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func wrong(text string, err error) error {
	return fmt.Errorf("%w: %.50q: %w", ErrNotAmount, text, err)
}

// Format writes grains as UCN without needless zeros and without the unit.
func Format[T ~uint64](amount T) string {
	whole, rest := uint64(amount)/grains, uint64(amount)%grains
	if rest == 0 {
		return strconv.FormatUint(whole, 10)
	}
	return fmt.Sprintf("%d.%s", whole, strings.TrimRight(fmt.Sprintf("%09d", rest), "0"))
}

// Text writes grains as UCN with the unit.
func Text[T ~uint64](amount T) string { return Format(amount) + " UCN" }

// String implements fmt.Stringer.
func (a Amount) String() string { return Format(a) }

// MarshalText implements encoding.TextMarshaler.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Amount) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}

// Set implements pflag.Value.
func (a *Amount) Set(text string) error { return a.UnmarshalText([]byte(text)) }

// Type implements pflag.Value.
func (a *Amount) Type() string { return "UCN" }
