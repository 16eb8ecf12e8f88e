// Package gateway is the domain of the REST gateway: how a request's path names an operation, how
// ids are written in text, where a reader of a log stands, which bytes a Range asks for, and which
// HTTP status a fault has.
//
// The gateway holds nothing and judges nobody: every call carries the user's own token to the
// service that answers it, and the gateway's own rights are never used for one. The package knows
// no HTTP, gRPC or NATS: package server speaks them, gen holds the generated stubs, wire puts all
// together.
package gateway
