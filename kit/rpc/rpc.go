// Package rpc builds the gRPC servers and clients of every service.
//
// A server made here has health, reflection, tracing, limits on size, time and streams, panic
// recovery, token authentication, per-account rate limits and redaction: only kit/fault values
// cross the wire, everything else becomes "internal error, id=..." while the cause is logged here.
// A client made here turns what arrives back into the same fault, so errors.Is works across
// machines, and sends the caller's token. TCP, unix sockets and the in-process Pipe run the same
// code: a service alone and all services in one process differ only in the Dialer they are given.
//
// It knows no service, no account rules and no token format: those come in as Authenticator and
// TokenSource (kit/token has both).
package rpc

import (
	"time"

	"github.com/united-containers/ucn/kit/config"
)

// Bounds shared by servers and clients. MaxMessage bounds what a configuration may allow.
const (
	DefaultMessage    = 4 * config.MiB   // one message, either way
	MaxMessage        = 64 * config.MiB  // the most a configuration may allow
	maxHeaders        = 32 << 10         // bytes of metadata per call; holds the largest fault
	maxToken          = 4 << 10          // bytes of a bearer token
	maxOrigin         = 5 << 10          // bytes of where a caller comes from
	pingEvery         = 30 * time.Second // keepalive of idle connections
	pingTimeout       = 10 * time.Second // then the connection is dead
	stallTimeout      = 20 * time.Second // a client that takes nothing is cut off
	minClientPing     = 10 * time.Second // clients that ping faster are cut off
	handshakeTimeout  = 10 * time.Second // TLS and HTTP/2 preface of a new connection
	authTimeout       = 10 * time.Second // proving one token, look-up of key sets included
	pipeBuffer        = 256 << 10        // bytes in flight per direction of a Pipe connection
	domain            = "ucn"            // of google.rpc.ErrorInfo
	authorizationName = "authorization"  // metadata key of the token
	originName        = "ucn-origin-bin" // metadata key of where the caller comes from
	bearer            = "Bearer "        // scheme of the token
)
