package rpc

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// endStalled has the kernel end connections whose client takes nothing; accepted ones inherit it.
// gRPC sets it only on a bare TCP connection, which those of this package are not.
func endStalled(_, _ string, raw syscall.RawConn) error {
	var err error
	failed := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT,
			int(stallTimeout.Milliseconds()))
	})
	if failed != nil {
		return failed
	}
	return err
}
