package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/gateway"
)

// parameters knows which query parameters each route takes, as the OpenAPI document says. One that
// is passed over silently answers another question than was asked: a mistyped filter lists all.
type parameters struct {
	routes map[string][]shape // by method and collection
}

// shape is a path with names in braces, and the parameters there.
type shape struct {
	at    []string
	names []string // sorted
}

const (
	collectionAt = 2        // of "/v1/<collection>"
	restOfPath   = "{path}" // takes all that is left of a path
)

func parametersOf(document []byte) (*parameters, error) {
	var d apiDocument
	if err := json.Unmarshal(document, &d); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	p := &parameters{routes: map[string][]shape{}}
	for path, operations := range d.Paths {
		t := shape{at: strings.Split(path, "/")}
		if len(t.at) <= collectionAt {
			continue
		}
		for method, operation := range operations {
			one := shape{at: t.at}
			for _, parameter := range operation.Parameters {
				if parameter.In == "query" {
					one.names = append(one.names, parameter.Name)
				}
			}
			slices.Sort(one.names)
			key := routeKey(strings.ToUpper(method), t.at)
			p.routes[key] = append(p.routes[key], one)
		}
	}
	for _, list := range p.routes { // "{job}:watch" before "{job}/{path}"
		slices.SortFunc(list, func(a, b shape) int { return cmp.Compare(len(a.at), len(b.at)) })
	}
	return p, nil
}

func routeKey(method string, at []string) string { return method + " " + at[collectionAt] }

// check refuses a query that cannot be read, or that has a parameter which the route does not take.
// Of a route that does not exist it says nothing.
func (p *parameters) check(r *http.Request) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fault.New(fault.InvalidArgument, gateway.ReasonRequest,
			"the query of the address cannot be read").Because(err)
	}
	t, known := p.find(r.Method, r.URL.Path)
	if !known {
		return nil
	}
	for name := range query {
		if _, takes := slices.BinarySearch(t.names, name); !takes {
			return fault.New(fault.InvalidArgument, gateway.ReasonParameter,
				"this path does not take the parameter %.64q: it takes %s", name, listOf(t.names)).
				With("parameter", fmt.Sprintf("%.64s", name))
		}
	}
	return nil
}

func listOf(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (p *parameters) find(method, path string) (shape, bool) {
	at := strings.Split(path, "/")
	if len(at) <= collectionAt {
		return shape{}, false
	}
	switch {
	case method == http.MethodHead:
		method = http.MethodGet
	case method == http.MethodPut && path == "/v1/files": // the same as POST
		method = http.MethodPost
	}
	for _, t := range p.routes[routeKey(method, at)] {
		if t.match(at) {
			return t, true
		}
	}
	return shape{}, false
}

func (t shape) match(at []string) bool {
	last := len(t.at) - 1
	if rest := t.at[last] == restOfPath; len(at) < len(t.at) || len(at) > len(t.at) && !rest {
		return false
	}
	for i, want := range t.at {
		if !fits(want, at[i]) {
			return i == last && want == restOfPath
		}
	}
	return true
}

// fits compares one piece of a path: a name in braces, and perhaps a verb, with an id and that
// verb; anything else with itself.
func fits(want, got string) bool {
	if !strings.HasPrefix(want, "{") {
		return want == got
	}
	_, verb, _ := strings.Cut(want, "}")
	id, ends := strings.CutSuffix(got, verb)
	return ends && id != "" && !strings.Contains(id, ":")
}
