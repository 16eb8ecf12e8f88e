package rpc

import (
	"log/slog"
	"net"
)

// Bound is the listener of a server with the configuration, over another.
func Bound(l net.Listener, cfg ServerConfig, log *slog.Logger) net.Listener {
	return bound(l, cfg, log)
}
