// Package config reads one strict YAML file into a struct that already holds its defaults.
//
// Strict means: an unknown key, a repeated key, a value of the wrong type, an empty value, an
// anchor, a second document or more than MaxFile bytes is an error, and every error names file,
// line and field. Inside values ${VAR} is replaced from the environment and ${VAR:-text} falls
// back to text; $$ is a dollar sign. Replacement happens after parsing, so a variable can never
// add structure. Secrets are never values: a SecretFile holds the path of a file.
//
// Durations are time.Duration ("30s"), sizes are Size ("64MiB"). A config struct tags its fields
// with `yaml:"name"`, is filled by its Default function, and may check itself with Validate.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

// Bounds of a configuration.
const (
	MaxFile   = 1 << 20 // bytes of a file
	MaxDepth  = 32      // levels of nesting
	MaxValue  = 1 << 16 // bytes of one value after replacement of variables
	maxErrors = 20      // errors reported at once
)

// Validator is implemented by config structs that check themselves. Load and Parse call Validate
// of the outermost struct only; it checks its own parts with Under.
type Validator interface {
	Validate() error
}

// Error is one thing wrong with a configuration.
type Error struct {
	File    string // path, or the name given to Parse; "" when not known
	Line    int    // from 1; 0 when the field is not in the file
	Field   string // dotted path, e.g. "ledger.rpc.addr" or "peers[2].addr"; "" for the whole
	Problem string // what is wrong and what to write instead
}

// Error returns "file:line: field: problem" without the parts that are not known.
func (e *Error) Error() string {
	var text bytes.Buffer
	if e.File != "" {
		text.WriteString(e.File + ":")
		if e.Line > 0 {
			fmt.Fprintf(&text, "%d:", e.Line)
		}
		text.WriteByte(' ')
	}
	if e.Field != "" {
		text.WriteString(e.Field + ": ")
	}
	return text.String() + e.Problem
}

// Invalid returns the error for a field whose value Validate refuses. Field is the YAML name.
func Invalid(field, format string, args ...any) error {
	return &Error{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// Under puts the name of the outer field before the fields named by err, which is what Validate of
// an inner struct returned. It returns nil for nil.
func Under(outer string, err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var moved []error
		for _, one := range joined.Unwrap() {
			moved = append(moved, Under(outer, one))
		}
		return errors.Join(moved...)
	}
	var inner *Error
	if !errors.As(err, &inner) {
		return &Error{Field: outer, Problem: err.Error()}
	}
	moved := *inner
	moved.Field = join(outer, inner.Field)
	return &moved
}

// Load reads the file at path into the struct that into points to, which holds the defaults. The
// environment is the process's own. Fields the file does not name keep their defaults. On an error
// the struct may be half filled: do not use it.
func Load(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open configuration: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	return Parse(path, text, os.LookupEnv, into)
}

// Parse is Load for text that is already read. Name stands for the file in errors; lookup answers
// for environment variables and may be nil, which leaves all of them unset.
func Parse(name string, text []byte, lookup func(string) (string, bool), into any) error {
	if len(text) > MaxFile {
		return &Error{File: name, Problem: fmt.Sprintf("larger than %d bytes", MaxFile)}
	}
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	root, err := parseDocument(name, text)
	if err != nil {
		return err
	}
	r := &reader{file: name, lookup: lookup, lines: map[string]int{}}
	if root != nil {
		r.document(root, into)
	}
	if len(r.errs) > 0 {
		return errors.Join(r.errs...)
	}
	v, ok := into.(Validator)
	if !ok {
		return nil
	}
	return r.locate(v.Validate())
}

// parseDocument returns the only document's root node, nil when the text is empty.
func parseDocument(name string, text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, &Error{File: name, Problem: "not valid YAML: " + err.Error()}
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, &Error{File: name, Problem: "holds more than one YAML document"}
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 {
		return nil, &Error{File: name, Problem: "not a YAML document"}
	}
	return document.Content[0], nil
}

// Write prints v as YAML, for a command that shows the defaults.
func Write(w io.Writer, v any) error {
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return encoder.Close()
}
