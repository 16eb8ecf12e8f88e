package server

import (
	"bytes"
	"cmp"
	_ "embed" // the page's template, script and style
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
)

//go:embed page/docs.html
var docsTemplate string

//go:embed page/docs.js
var docsScript []byte

//go:embed page/docs.css
var docsStyle []byte

// docsOf makes the page of the OpenAPI document: what can be called, with what, and a form to try
// it. Everything comes from this process.
func docsOf(document []byte) ([]byte, error) {
	var d apiDocument
	if err := json.Unmarshal(document, &d); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	page, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("read the page's template: %w", err)
	}
	var out bytes.Buffer
	if err := page.Execute(&out, d.view()); err != nil {
		return nil, fmt.Errorf("write the page: %w", err)
	}
	return out.Bytes(), nil
}

// apiDocument is what the page shows of an OpenAPI 2 document.
type apiDocument struct {
	Info        struct{ Title, Description string }
	Paths       map[string]map[string]apiOperation
	Definitions map[string]apiSchema
}

type apiOperation struct {
	OperationID          string `json:"operationId"`
	Summary, Description string
	Tags                 []string
	Parameters           []apiParameter
	Responses            map[string]struct{ Schema *apiSchema }
}

type apiParameter struct {
	Name, In, Type, Format, Description, Default string
	Required                                     bool
	Enum                                         []string
	Schema                                       *apiSchema
	Items                                        *apiSchema
}

type apiSchema struct {
	Ref                              string `json:"$ref"`
	Type, Format, Title, Description string
	Items                            *apiSchema
	Enum                             []string
	Properties                       map[string]apiSchema
	Required                         []string
}

// docsView is what the template reads.
type docsView struct {
	Title, About string
	Groups       []docsGroup
	Schemas      []docsSchema
}

type docsGroup struct {
	Name       string
	Operations []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, Description, Answer string
	Parameters                                     []docsParameter
	Body                                           string // link to the body's schema
	HasBody, Raw                                   bool
}

type docsParameter struct {
	Name, In, Type, Description, Default string
	Required                             bool
	Enum                                 []string
}

type docsSchema struct {
	Name, Description string
	Enum              []string
	Fields            []docsField
}

type docsField struct{ Name, Type, Link, Description string }

func (d *apiDocument) view() docsView {
	v := docsView{Title: d.Info.Title, About: d.Info.Description}
	groups := map[string]*docsGroup{}
	for path, operations := range d.Paths {
		for method, o := range operations {
			name := "Other"
			if len(o.Tags) > 0 {
				name = strings.TrimSuffix(o.Tags[0], "Service")
			} else if head, _, ok := strings.Cut(o.OperationID, "_"); ok {
				name = head
			}
			if groups[name] == nil {
				groups[name] = &docsGroup{Name: name}
			}
			groups[name].Operations = append(groups[name].Operations, operationView(method, path, o))
		}
	}
	for _, g := range groups {
		slices.SortFunc(g.Operations, func(a, b docsOperation) int {
			return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
		})
		v.Groups = append(v.Groups, *g)
	}
	slices.SortFunc(v.Groups, func(a, b docsGroup) int { return cmp.Compare(a.Name, b.Name) })
	for name, schema := range d.Definitions {
		v.Schemas = append(v.Schemas, schemaView(name, schema))
	}
	slices.SortFunc(v.Schemas, func(a, b docsSchema) int { return cmp.Compare(a.Name, b.Name) })
	return v
}

func operationView(method, path string, o apiOperation) docsOperation {
	v := docsOperation{
		ID: cmp.Or(o.OperationID, method+path), Method: strings.ToUpper(method), Path: path,
		Summary: o.Summary, Description: o.Description,
	}
	if ok := o.Responses["200"].Schema; ok != nil {
		_, v.Answer = typeOf(ok)
	}
	for _, p := range o.Parameters {
		if p.In == "body" {
			v.HasBody = true
			if p.Schema != nil {
				_, v.Body = typeOf(p.Schema)
				v.Raw = p.Schema.Format == "binary"
			}
			continue
		}
		kind := cmp.Or(p.Format, p.Type)
		if p.Type == "array" {
			kind = "several"
		}
		enum := p.Enum
		if p.Items != nil && len(enum) == 0 {
			enum = p.Items.Enum
		}
		v.Parameters = append(v.Parameters, docsParameter{
			Name: p.Name, In: p.In, Type: kind, Description: p.Description, Default: p.Default,
			Required: p.Required, Enum: enum,
		})
	}
	return v
}

func schemaView(name string, s apiSchema) docsSchema {
	v := docsSchema{Name: name, Description: cmp.Or(s.Description, s.Title), Enum: s.Enum}
	for field, of := range s.Properties {
		text, link := typeOf(&of)
		v.Fields = append(v.Fields, docsField{
			Name: field, Type: text, Link: link, Description: cmp.Or(of.Description, of.Title),
		})
	}
	slices.SortFunc(v.Fields, func(a, b docsField) int { return cmp.Compare(a.Name, b.Name) })
	return v
}

// typeOf words a schema, and names the definition that it leads to, if any.
func typeOf(s *apiSchema) (text, link string) {
	switch {
	case s.Ref != "":
		link = strings.TrimPrefix(s.Ref, "#/definitions/")
		return link, link
	case s.Type == "array" && s.Items != nil:
		text, link = typeOf(s.Items)
		return "list of " + text, link
	}
	return cmp.Or(s.Format, s.Type, "object"), ""
}

// docsPolicy lets the page load nothing but its own script and style, and call nobody but us.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"form-action 'none'; frame-ancestors 'none'; base-uri 'none'"

func (s *Server) docs(w http.ResponseWriter, r *http.Request) {
	s.static(w, r, "text/html; charset=utf-8", s.docsPage)
}

func (s *Server) docsFile(w http.ResponseWriter, r *http.Request) {
	switch r.PathValue("file") {
	case "docs.js":
		s.static(w, r, "text/javascript; charset=utf-8", docsScript)
	case "docs.css":
		s.static(w, r, "text/css; charset=utf-8", docsStyle)
	default:
		s.fail(w, r, routeUnknown())
	}
}

func (s *Server) static(w http.ResponseWriter, r *http.Request, kind string, content []byte) {
	header := w.Header()
	header.Set("Content-Type", kind)
	header.Set("Content-Security-Policy", docsPolicy)
	header.Set("Cache-Control", "no-cache")
	_, err := w.Write(content)
	s.wrote(r, err)
}
