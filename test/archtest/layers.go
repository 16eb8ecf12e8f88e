package archtest

import (
	"slices"
	"strings"
)

// Module is the import path of the main module; ProtoModule that of the messages.
const (
	Module      = "github.com/united-containers/ucn"
	ProtoModule = Module + "/proto"
)

// Layer says where a package stands. A package may import only lower layers, and its own layer
// where the layer's rule says so.
type Layer int

// The layers, lowest first.
const (
	LayerOutside Layer = iota
	LayerProto
	LayerChain
	LayerKit
	LayerDomain     // services/X
	LayerTechnology // services/X/{server,<technology>,Xtest}
	LayerWire       // services/X/wire
	LayerWiring     // wiring, services/X/cmd/X
	LayerCLI
	LayerTop // cmd, test, examples
)

// Place tells the layer of a package of the project and, below services, which service it is of.
func Place(path string) (layer Layer, service string) {
	rest, ok := strings.CutPrefix(path, Module+"/")
	if !ok {
		return LayerOutside, ""
	}
	parts := strings.Split(rest, "/")
	switch parts[0] {
	case "proto":
		return LayerProto, ""
	case "chain":
		return LayerChain, ""
	case "kit":
		return LayerKit, ""
	case "services":
		return placeService(parts)
	case "wiring":
		return LayerWiring, ""
	case "cli":
		return LayerCLI, ""
	case "cmd", "test", "examples":
		return LayerTop, ""
	}
	return LayerOutside, ""
}

func placeService(parts []string) (Layer, string) {
	switch {
	case len(parts) < 2:
		return LayerOutside, ""
	case len(parts) == 2:
		return LayerDomain, parts[1]
	case parts[2] == "wire":
		return LayerWire, parts[1]
	case parts[2] == "cmd":
		return LayerWiring, parts[1]
	}
	return LayerTechnology, parts[1]
}

// CheckImport returns why from may not import to, or "".
func CheckImport(from, to string) string {
	fl, fs := Place(from)
	tl, ts := Place(to)
	if tl == LayerOutside || fl == LayerOutside || fl == LayerTop {
		return ""
	}
	switch {
	case tl > fl:
		return "a lower layer imports a higher one"
	case fl == LayerCLI && tl >= LayerDomain && tl <= LayerWiring:
		return "the client commands import a service"
	case fs != "" && ts != "" && fs != ts:
		return "a service imports another service"
	case fl == LayerTechnology && tl == LayerTechnology && !sameTechnology(from, to):
		return "a technology imports another technology"
	}
	return ""
}

// sameTechnology tells whether both stand in one technology's folder, or to is the contract
// suite or a fake, which tests of any technology use.
func sameTechnology(from, to string) bool {
	f, t := strings.Split(from, "/"), strings.Split(to, "/")
	const depth = 5 // host/org/repo/services/X -> index of the technology
	return f[depth] == t[depth] || strings.HasSuffix(t[depth], "test") || t[depth] == "fake"
}

// domainBans are imports that a service's root package must do without: it is rules and seams.
var domainBans = []string{
	"os", "os/exec", "net", "net/http", "database/sql", "syscall",
	ProtoModule, "google.golang.org/grpc", "google.golang.org/protobuf",
	"github.com/nats-io/", "github.com/jackc/", "github.com/cockroachdb/pebble",
	"golang.org/x/sys",
}

// chainAllows is all that chain may import from outside the project and the standard library.
var chainAllows = []string{
	"google.golang.org/protobuf", "github.com/oasisprotocol/curve25519-voi",
}

// chainBans are standard packages that would let time, chance or the machine into the rules.
var chainBans = []string{"time", "math/rand", "math/rand/v2", "crypto/rand", "os", "net", "log"}

// CheckForeign returns why a package of the project may not import a package from outside it.
func CheckForeign(from, to string, std bool) string {
	layer, _ := Place(from)
	switch layer {
	case LayerProto:
		if !std && !hasAnyPrefix(to, "google.golang.org/protobuf", "google.golang.org/grpc") {
			return "messages link protobuf and grpc alone"
		}
	case LayerChain:
		if std && slices.Contains(chainBans, to) {
			return "the rules of money know no clock, chance or machine"
		}
		if !std && !hasAnyPrefix(to, chainAllows...) {
			return "chain imports std, proto and its crypto library alone"
		}
	case LayerDomain:
		if slices.Contains(domainBans, to) || !std && hasAnyPrefix(to, domainBans...) {
			return "a domain package knows no technology"
		}
	}
	return ""
}

func hasAnyPrefix(path string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(path, p) })
}
