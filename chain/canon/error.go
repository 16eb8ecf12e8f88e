package canon

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Limits of canonical bytes.
const (
	// MaxDepth is how many messages may stand within one another, the outermost counted.
	MaxDepth = 8
	// MaxSize is the longest message in bytes.
	MaxSize = 64 << 20
)

// What can be wrong with bytes or a message. Every error of this package wraps one of them.
var (
	ErrTruncated     = errors.New("bytes end too early")
	ErrTrailing      = errors.New("bytes are left over")
	ErrNotMinimal    = errors.New("varint is not minimal")
	ErrOverflow      = errors.New("value does not fit its type")
	ErrDefault       = errors.New("default value is present")
	ErrUnknownField  = errors.New("unknown field")
	ErrRepeatedField = errors.New("singular field is repeated")
	ErrOrder         = errors.New("fields are not ascending")
	ErrWireType      = errors.New("wrong wire type")
	ErrNotPacked     = errors.New("repeated scalars are not packed")
	ErrOneof         = errors.New("two members of a oneof are set")
	ErrUTF8          = errors.New("text is not valid UTF-8")
	ErrDepth         = errors.New("messages are nested too deep")
	ErrSize          = errors.New("too long")
	ErrLength        = errors.New("wrong length")
	ErrDescriptor    = errors.New("kind of field has no canonical form")
)

// Error says what is wrong, in which message, and at which byte.
type Error struct {
	// Offset counts bytes from the start of the input; -1 when a message was to be written.
	Offset int
	// Path names the message, such as "body.operations[3].transfer".
	Path string
	// Field is the number of the field in that message, 0 if none; Name its name where known.
	Field int
	Name  string
	// Err is one of the errors of this package.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Err.Error()
	where := join(e.Path, e.Name)
	if e.Field != 0 && e.Name == "" {
		where = join(e.Path, fmt.Sprintf("field %d", e.Field))
	}
	if where != "" {
		text = where + ": " + text
	}
	if e.Offset >= 0 {
		text = fmt.Sprintf("%s (at byte %d)", text, e.Offset)
	}
	return text
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// NameField fills in the name of the field of an *Error of reading a message of the descriptor's
// type, and returns err. Readers by hand know numbers only.
func NameField(err error, of protoreflect.MessageDescriptor) error {
	var e *Error
	if !errors.As(err, &e) || e.Name != "" {
		return err
	}
	if e.Path != "" {
		for step := range strings.SplitSeq(e.Path, ".") {
			name, _, _ := strings.Cut(step, "[")
			field := of.Fields().ByName(protoreflect.Name(name))
			if field == nil || field.Message() == nil {
				return err
			}
			of = field.Message()
		}
	}
	if field := of.Fields().ByNumber(protoreflect.FieldNumber(e.Field)); field != nil {
		e.Name = string(field.Name())
	}
	return err
}
