// Package openapi holds the OpenAPI document that is generated from the protos and their REST
// rules.
package openapi

import _ "embed" // the document

// Document is the generated document, OpenAPI 2.0 as JSON.
//
//go:embed ucn.swagger.json
var Document []byte
