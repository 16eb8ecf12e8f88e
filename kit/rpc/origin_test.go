package rpc_test

import (
	"testing"

	"github.com/united-containers/ucn/kit/rpc"
)

func TestOrigin(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:443": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
		"[fe80::2%eth1]:1": "fe80::/64", "": "", "pipe": "pipe", "host:80": "host:80",
	} {
		if got := rpc.Origin(addr); got != want {
			t.Errorf("Origin(%q) is %q, want %q", addr, got, want)
		}
	}
}

func TestNetwork(t *testing.T) {
	for origin, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2::/64": "2001:db8:1::/48", "fe80::/64": "fe80::/48",
		"2001:db8::/32": "2001:db8::/32", "192.0.2.0/24": "192.0.2.0/24", "": "", "pipe": "pipe",
	} {
		if got := rpc.Network(origin); got != want {
			t.Errorf("Network(%q) is %q, want %q", origin, got, want)
		}
	}
}
