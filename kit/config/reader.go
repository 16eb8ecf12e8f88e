package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reader walks a YAML tree and a Go value together. The yaml package's own strict mode knows only
// lines; walking ourselves lets every error name its field, and variables be replaced in place.
type reader struct {
	file   string
	lookup func(string) (string, bool)
	lines  map[string]int // field path -> line, for errors found later by Validate
	errs   []error
}

func (r *reader) document(root *yaml.Node, into any) {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: %T is not a pointer to a struct", into))
	}
	r.value("", root, v.Elem(), 0)
}

func (r *reader) problem(path string, n *yaml.Node, format string, args ...any) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, &Error{
			File: r.file, Line: n.Line, Field: path, Problem: fmt.Sprintf(format, args...),
		})
	}
}

// value fills v from n. Path is "" for the root.
func (r *reader) value(path string, n *yaml.Node, v reflect.Value, depth int) {
	r.lines[path] = n.Line
	switch {
	case depth > MaxDepth:
		r.problem(path, n, "nested more than %d levels deep", MaxDepth)
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.problem(path, n, "anchors and aliases are not allowed, write the value out")
		return
	case isNull(n) && isContainer(v):
		return // "key:" with everything below it commented out keeps the defaults
	case isNull(n):
		r.problem(path, n, "has no value: give one or remove the line")
		return
	case v.Kind() == reflect.Pointer && !readsItself(v):
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		r.value(path, n, v.Elem(), depth)
		return
	}
	switch {
	case readsItself(v) || !isContainer(v):
		r.scalar(path, n, v)
	case v.Kind() == reflect.Struct:
		r.structure(path, n, v, depth)
	case v.Kind() == reflect.Slice:
		r.list(path, n, v, depth)
	default:
		r.table(path, n, v, depth)
	}
}

// pairs checks a mapping node and calls each for its keys and values.
func (r *reader) pairs(path string, n *yaml.Node, each func(key string, at, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.problem(path, n, "wants key: value pairs")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Anchor != "" {
			r.problem(path, key, "a key must be plain text")
			continue
		}
		if first, repeated := seen[key.Value]; repeated {
			r.problem(join(path, key.Value), key, "given before in line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		each(key.Value, key, value)
	}
}

func (r *reader) structure(path string, n *yaml.Node, v reflect.Value, depth int) {
	fields, names := fieldsOf(v)
	r.pairs(path, n, func(key string, at, value *yaml.Node) {
		field, known := fields[key]
		if !known {
			r.problem(join(path, key), at, "unknown field; known here: %s",
				strings.Join(names, ", "))
			return
		}
		r.value(join(path, key), value, field, depth+1)
	})
}

// table fills a map with text keys. Entries of the file replace defaults of the same key.
func (r *reader) table(path string, n *yaml.Node, v reflect.Value, depth int) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	r.pairs(path, n, func(key string, _, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		r.value(join(path, key), value, item, depth+1)
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
	})
}

// list fills a slice. A list of the file replaces the default as a whole.
func (r *reader) list(path string, n *yaml.Node, v reflect.Value, depth int) {
	if n.Kind != yaml.SequenceNode {
		r.problem(path, n, "wants a list")
		return
	}
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		r.value(path+"["+strconv.Itoa(i)+"]", item, items.Index(i), depth+1)
	}
	v.Set(items)
}

func (r *reader) scalar(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		r.problem(path, n, "wants a single value")
		return
	}
	expanded, err := expand(n.Value, r.lookup)
	if err != nil {
		r.problem(path, n, "%v", err)
		return
	}
	leaf := *n
	if expanded != n.Value {
		// Resolve anew, quoted or not: port: "${PORT}" is a number (braces need the quotes
		// inside {}), and a text field takes any value as it is written.
		leaf.Value, leaf.Tag, leaf.Style = expanded, "", 0
		if isNull(&leaf) {
			leaf.Tag = "!!str" // an empty variable is empty text, not "no value"
		}
	}
	if err := decode(&leaf, v); err != nil {
		r.problem(path, n, "%v", err)
	}
}

// decode fills one leaf and words the error without the yaml package's own prefixes.
func decode(n *yaml.Node, v reflect.Value) error {
	err := n.Decode(v.Addr().Interface())
	var mistyped *yaml.TypeError
	if errors.As(err, &mistyped) {
		return fmt.Errorf("%q is not a %s", n.Value, kindName(v.Type()))
	}
	return err
}

// locate adds file and line to what Validate returned.
func (r *reader) locate(err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var located []error
		for _, one := range joined.Unwrap() {
			located = append(located, r.locate(one))
		}
		return errors.Join(located...)
	}
	var found *Error
	if !errors.As(err, &found) {
		return &Error{File: r.file, Problem: err.Error()}
	}
	located := *found
	located.File = r.file
	located.Line = r.lines[found.Field]
	return &located
}

// fieldsOf maps YAML names to the settable fields of a struct and lists the names in order. Fields
// of embedded structs tagged ",inline" count as the struct's own.
func fieldsOf(v reflect.Value) (fields map[string]reflect.Value, names []string) {
	fields = map[string]reflect.Value{}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if !field.IsExported() || name == "-" {
			continue
		}
		if slices.Contains(strings.Split(options, ","), "inline") {
			inner, innerNames := fieldsOf(v.Field(i))
			names = append(names, innerNames...)
			for key, value := range inner {
				fields[key] = value
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(field.Name) // as the yaml package does when writing
		}
		fields[name] = v.Field(i)
		names = append(names, name)
	}
	return fields, names
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// isContainer reports whether v has fields or elements of its own in YAML.
func isContainer(v reflect.Value) bool {
	if readsItself(v) {
		return false
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Slice:
		return true
	case reflect.Map:
		return v.Type().Key().Kind() == reflect.String
	case reflect.Pointer:
		return isContainer(reflect.New(v.Type().Elem()).Elem())
	}
	return false
}

// readsItself reports whether v's type has its own reading of one value.
func readsItself(v reflect.Value) bool {
	if !v.CanAddr() {
		return false
	}
	switch v.Addr().Interface().(type) {
	case yaml.Unmarshaler, encoding.TextUnmarshaler:
		return true
	}
	return false
}

func kindName(t reflect.Type) string {
	if t.PkgPath() == "time" && t.Name() == "Duration" {
		return `duration such as "30s" or "1h30m"`
	}
	switch t.Kind() {
	case reflect.Bool:
		return "bool (true or false)"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.String:
		return "text"
	}
	return fmt.Sprintf("whole number of type %s", t)
}

func join(outer, inner string) string {
	if outer == "" || inner == "" || strings.HasPrefix(inner, "[") {
		return outer + inner
	}
	return outer + "." + inner
}
