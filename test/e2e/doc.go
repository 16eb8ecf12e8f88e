// Package e2e tests whole networks through what their users have: the command line, gRPC, REST and
// the bus. The same bodies run against all services in one process and against each in its own.
package e2e
