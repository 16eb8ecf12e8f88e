package gateway

import (
	"strconv"
	"strings"

	"github.com/united-containers/ucn/kit/fault"
)

// Span is a part of a file.
type Span struct {
	// First is the first byte, Length their number, at least 1 unless the file is empty.
	First, Length int64
	// Partial says that less than the whole file was asked for in a way that must be answered so.
	Partial bool
}

// ParseRange reads a Range header for a file of size bytes: one range of bytes. What RFC 9110
// lets a server ignore (several ranges, other units, nonsense) gives the whole file. A range in
// which no byte lies is a fault RANGE_NOT_SATISFIABLE.
func ParseRange(header string, size int64) (Span, error) {
	whole := Span{Length: size}
	set, isBytes := strings.CutPrefix(strings.ToLower(strings.TrimSpace(header)), "bytes=")
	first, last, isRange := strings.Cut(strings.TrimSpace(set), "-")
	if !isBytes || !isRange || strings.ContainsAny(set, ", ") {
		return whole, nil
	}
	from, fromErr := strconv.ParseUint(first, 10, 63)
	to, toErr := strconv.ParseUint(last, 10, 63)
	switch {
	case first == "" && toErr == nil: // the last bytes
		length := min(int64(to), size)
		if length == 0 {
			return Span{}, unsatisfiable(size)
		}
		return Span{First: size - length, Length: length, Partial: true}, nil
	case fromErr != nil || last != "" && (toErr != nil || to < from):
		return whole, nil
	case int64(from) >= size:
		return Span{}, unsatisfiable(size)
	case last == "" || int64(to) >= size:
		to = uint64(size) - 1
	}
	return Span{First: int64(from), Length: int64(to-from) + 1, Partial: true}, nil
}

// ContentRange returns the value of the Content-Range header.
func (s Span) ContentRange(size int64) string {
	return "bytes " + strconv.FormatInt(s.First, 10) + "-" +
		strconv.FormatInt(s.First+s.Length-1, 10) + "/" + strconv.FormatInt(size, 10)
}

func unsatisfiable(size int64) error {
	return fault.New(fault.OutOfRange, ReasonRange, "the file has %d bytes", size).
		With("size", strconv.FormatInt(size, 10))
}
