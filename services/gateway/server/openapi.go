package server

import (
	_ "embed" // the page and the part of the document that is not generated
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
)

// ownOpenAPI describes what is not generated: files, logs, errors, tokens.
//
//go:embed page/openapi.json
var ownOpenAPI []byte

//go:embed page/index.html
var indexPage []byte

// mergeOpenAPI adds our own part to the generated document: members of "paths" and "definitions"
// are added to, other members replaced. Every operation gets the shape of errors.
func mergeOpenAPI(generated []byte) ([]byte, error) {
	var document, own map[string]any
	if err := json.Unmarshal(generated, &document); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	if err := json.Unmarshal(ownOpenAPI, &own); err != nil {
		return nil, fmt.Errorf("read the gateway's part of the OpenAPI document: %w", err)
	}
	addKeys(document)
	for key, value := range own {
		if key == "paths" || key == "definitions" {
			mergeMembers(document, key, value)
		} else {
			document[key] = value
		}
	}
	addErrors(document)
	out, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	return out, nil
}

// mergeMembers adds the members of more to document[key], one level deeper for paths that both
// have.
func mergeMembers(document map[string]any, key string, more any) {
	into, _ := document[key].(map[string]any)
	if into == nil {
		into = map[string]any{}
		document[key] = into
	}
	members, _ := more.(map[string]any)
	for name, value := range members {
		there, _ := into[name].(map[string]any)
		added, _ := value.(map[string]any)
		if there == nil || added == nil {
			into[name] = value
			continue
		}
		maps.Copy(there, added)
	}
}

// addKeys names the Idempotency-Key at every call that takes one: those that are generated and
// change something.
func addKeys(document map[string]any) {
	paths, _ := document["paths"].(map[string]any)
	for _, path := range paths {
		operations, _ := path.(map[string]any)
		for method, operation := range operations {
			one, _ := operation.(map[string]any)
			if one == nil || method == "get" || method == "head" {
				continue
			}
			parameters, _ := one["parameters"].([]any)
			one["parameters"] = append(parameters, map[string]any{
				"name": keyHeader, "in": "header", "type": "string", "maxLength": maxKey,
				"description": "A repeated request with the same key is answered alike and done once.",
			})
		}
	}
}

func addErrors(document map[string]any) {
	paths, _ := document["paths"].(map[string]any)
	for _, path := range paths {
		operations, _ := path.(map[string]any)
		for _, operation := range operations {
			one, _ := operation.(map[string]any)
			responses, _ := one["responses"].(map[string]any)
			if responses == nil || responses["default"] != nil {
				continue
			}
			responses["default"] = map[string]any{
				"description": "Anything else.",
				"schema":      map[string]any{"$ref": "#/definitions/Failure"},
			}
		}
	}
}

func (s *Server) serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	_, err := w.Write(s.openAPI)
	s.wrote(r, err)
}

// page serves what a person sees at "/": no scripts, nothing from elsewhere.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	header.Set("Cache-Control", "no-cache")
	_, err := w.Write(indexPage)
	s.wrote(r, err)
}
