package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits on how code may look.
const (
	maxFileLines     = 500
	maxFunctionLines = 70
	// maxTestLines is higher: a test's table is data, not steps.
	maxTestLines   = 150
	maxLineColumns = 100
	maxParameters  = 5
)

// bannedNames are package names that say nothing.
var bannedNames = []string{"util", "utils", "common", "helpers", "misc", "base", "types", "models"}

// File is one parsed source file.
type File struct {
	Path   string
	Test   bool
	Source []byte
	Set    *token.FileSet
	AST    *ast.File
}

// ReadFile parses a source file. Generated files return nil.
func ReadFile(path string) (*File, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	return ParseFile(path, src)
}

// ParseFile parses source text. Generated files return nil.
func ParseFile(path string, src []byte) (*File, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, path, src, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("parse source: %w", err)
	}
	if ast.IsGenerated(tree) {
		return nil, nil
	}
	test := strings.HasSuffix(path, "_test.go")
	return &File{Path: path, Test: test, Source: src, Set: set, AST: tree}, nil
}

// Complaints lists what in the file breaks a rule of style, as "path:line: what".
func (f *File) Complaints() []string {
	var out []string
	say := func(pos token.Pos, format string, args ...any) {
		at := f.Set.Position(pos)
		out = append(out, fmt.Sprintf("%s:%d: %s", f.Path, at.Line, fmt.Sprintf(format, args...)))
	}
	f.checkSizes(say)
	f.checkDeclarations(say)
	f.checkCalls(say)
	return out
}

type sayer func(pos token.Pos, format string, args ...any)

func (f *File) checkSizes(say sayer) {
	lines := strings.Split(strings.TrimSuffix(string(f.Source), "\n"), "\n")
	if len(lines) > maxFileLines {
		say(f.AST.Pos(), "file has %d lines, more than %d", len(lines), maxFileLines)
	}
	file := f.Set.File(f.AST.Pos())
	for i, line := range lines {
		width := utf8.RuneCountInString(line)
		if width > maxLineColumns && !strings.Contains(line, "http") {
			say(file.LineStart(i+1), "line has %d columns, more than %d", width, maxLineColumns)
		}
	}
}

func (f *File) checkDeclarations(say sayer) {
	for _, decl := range f.AST.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			f.checkFunction(d, say)
		case *ast.GenDecl:
			f.checkGlobals(d, say)
		}
	}
}

func (f *File) checkFunction(d *ast.FuncDecl, say sayer) {
	if d.Name.Name == "init" && d.Recv == nil {
		say(d.Pos(), "init function")
	}
	lines := f.Set.Position(d.End()).Line - f.Set.Position(d.Pos()).Line + 1
	most := maxFunctionLines
	if f.Test {
		most = maxTestLines
	}
	if lines > most {
		say(d.Pos(), "%s has %d lines, more than %d", d.Name.Name, lines, most)
	}
	if n := d.Type.Params.NumFields(); n > maxParameters {
		say(d.Pos(), "%s has %d parameters, more than %d", d.Name.Name, n, maxParameters)
	}
}

// checkGlobals lets package variables be errors, tables of constants and interface assertions.
func (f *File) checkGlobals(d *ast.GenDecl, say sayer) {
	if d.Tok != token.VAR || f.Test {
		return
	}
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		if len(v.Values) == 0 && !isEmbed(d) {
			say(v.Pos(), "package variable %s without a fixed value", v.Names[0].Name)
		}
	}
}

func isEmbed(d *ast.GenDecl) bool {
	return d.Doc != nil && slices.ContainsFunc(d.Doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed")
	})
}

// checkCalls finds calls that no code here may make, by the resolved import path.
func (f *File) checkCalls(say sayer) {
	names := f.importNames()
	ast.Inspect(f.AST, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		f.checkSelector(names[x.Name], x, sel, say)
		return true
	})
}

func (f *File) checkSelector(path string, x *ast.Ident, sel *ast.SelectorExpr, say sayer) {
	full := path + "." + sel.Sel.Name
	inSig := strings.HasSuffix(filepath.Dir(f.Path), filepath.FromSlash("chain/sig"))
	switch {
	case strings.HasPrefix(full, "crypto/ed25519.Verify") && !(inSig && f.Test):
		say(sel.Pos(), "crypto/ed25519 verification: signatures go through chain/sig (ZIP-215)")
	case strings.HasPrefix(path, "github.com/oasisprotocol/curve25519-voi") && !inSig:
		say(sel.Pos(), "curve25519-voi outside chain/sig")
	case f.Test && full == "time.Sleep" && !f.imports("testing/synctest"):
		say(sel.Pos(), "time.Sleep in a test: wait for the event, or use testing/synctest")
	case f.Test && isTestHandle(x) && strings.HasPrefix(sel.Sel.Name, "Skip"):
		say(sel.Pos(), "a test that skips")
	}
}

func isTestHandle(x *ast.Ident) bool {
	return slices.Contains([]string{"t", "b", "f", "tb"}, x.Name)
}

// imports tells whether the file imports path. A file that runs in synctest's bubble may sleep:
// there it is virtual time.
func (f *File) imports(path string) bool {
	return slices.ContainsFunc(f.AST.Imports, func(i *ast.ImportSpec) bool {
		return i.Path.Value == `"`+path+`"`
	})
}

// importNames maps the name a package has in this file to its path.
func (f *File) importNames() map[string]string {
	names := map[string]string{}
	for _, imp := range f.AST.Imports {
		path := strings.Trim(imp.Path.Value, `"`)
		name := path[strings.LastIndex(path, "/")+1:]
		if imp.Name != nil {
			name = imp.Name.Name
		}
		names[name] = path
	}
	return names
}

// BannedNames returns the package names that say nothing.
func BannedNames() []string { return slices.Clone(bannedNames) }
