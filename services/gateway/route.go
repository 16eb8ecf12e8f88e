package gateway

import (
	"maps"
	"net/url"
	"strings"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
)

// Operation is how a request is served.
type Operation int

// The operations.
const (
	// Call is one request and one response of the generated stubs.
	Call Operation = iota
	// Watch is a stream of the generated stubs.
	Watch
	// Logs is a job's log as server-sent events.
	Logs
	// Stats is what an attempt of a job uses, once or as server-sent events.
	Stats
	// PutFile stores the raw body.
	PutFile
	// GetFile returns raw bytes.
	GetFile
	// AppendUpload adds the raw body to an upload.
	AppendUpload
)

// Route is a request, read.
type Route struct {
	Operation Operation
	// Name is the path with its ids left out, for spans and limits.
	Name string
	// Path and Query have all ids in the form that the generated stubs read.
	Path  string
	Query url.Values
	// Job is set for Logs and Stats, and for the Watch of a job.
	Job [32]byte
	// File is set for GetFile, and Inside with the path inside the directory that it is.
	File   cid.CID
	Inside string
	// Upload is set for AppendUpload.
	Upload string
}

// WatchBlocks is the name of the route that watches blocks.
const WatchBlocks = "/v1/" + watchBlocks

// MaxPath bounds the path of a request, in bytes.
const MaxPath = 5 << 10

const (
	segments      = 4 // of "/v1/<collection>/<id>", with the empty one before the first slash
	collection    = 2
	object        = 3
	part          = 4
	inner         = 5
	collectJobs   = "jobs"
	collectFiles  = "files"
	collectBlocks = "blocks"
	collectUpload = "uploads"

	collectEscrows = "escrows"
	collectLeases  = "leases"
	collectHosts   = "hosts"
	collectOffers  = "offers"
	// collectInstances are hosts, and the scheduler.
	collectInstances = "instances"
	// partAttempts is followed by an id of its own.
	partAttempts = "attempts"
	// watchBlocks is where a verb stands behind the collection itself.
	watchBlocks = "blocks:watch"
)

// prefixOf returns the human-readable part of the ids of a collection, empty where they have none;
// false for a collection whose members have other names.
func prefixOf(name string) (hrp string, known bool) {
	switch name {
	case "accounts":
		return id.Account, true
	case collectEscrows:
		return id.Escrow, true
	case collectLeases:
		return id.Lease, true
	case collectJobs:
		return id.Job, true
	case "transactions", collectHosts, collectInstances:
		return "", true
	}
	return "", false
}

// Resolve reads method, path and query of a request under /v1. This is the one place where ids are
// translated. Errors are faults: ID_INVALID, ROUTE_UNKNOWN for a path that is too long. A path that
// no route has is left to the stubs, which say so.
func Resolve(method, path string, query url.Values) (Route, error) {
	if len(path) > MaxPath {
		return Route{}, fault.New(fault.NotFound, ReasonRoute, "no path is this long")
	}
	r := Route{Path: path, Query: query}
	at := strings.Split(path, "/")
	r.Name = name(at)
	if len(at) <= collection {
		return r, nil
	}
	if err := r.translateQuery(at[collection]); err != nil {
		return r, err
	}
	if len(at) == segments-1 && at[collection] == watchBlocks && method == "GET" {
		r.Operation = Watch
		return r, nil
	}
	if len(at) == segments-1 && at[collection] == collectFiles {
		if method == "PUT" || method == "POST" {
			r.Operation = PutFile
		}
		return r, nil
	}
	if len(at) < segments || at[object] == "" {
		return r, nil
	}
	return r, r.translatePath(method, at)
}

func (r *Route) translatePath(method string, at []string) error {
	text, verb, hasVerb := strings.Cut(at[object], ":")
	switch at[collection] {
	case collectFiles:
		if len(at) > segments {
			r.Inside = strings.Join(at[part:], "/")
		}
		return r.file(method, text, !hasVerb)
	case collectUpload:
		if method == "PATCH" && len(at) == segments {
			r.Operation, r.Upload = AppendUpload, at[object]
		}
		return nil
	}
	hrp, known := prefixOf(at[collection])
	if !known {
		return nil
	}
	raw, err := ParseID(hrp, text)
	if err != nil {
		return err
	}
	at[object] = encode(raw[:])
	if hasVerb {
		at[object] += ":" + verb
	}
	if at[collection] == collectHosts && len(at) > inner && at[part] == partAttempts {
		if err := translateAttempt(at); err != nil {
			return err
		}
	}
	r.Path = strings.Join(at, "/")
	if at[collection] != collectJobs || method != "GET" {
		return nil
	}
	switch {
	case len(at) == segments && verb == "watch":
		r.Operation, r.Job = Watch, raw
	case len(at) == segments+1 && !hasVerb && at[part] == "logs":
		r.Operation, r.Job = Logs, raw
	case len(at) == segments+1 && !hasVerb && at[part] == "stats":
		r.Operation, r.Job = Stats, raw
	}
	return nil
}

// translateAttempt reads the id of an attempt behind that of its host.
func translateAttempt(at []string) error {
	text, verb, hasVerb := strings.Cut(at[inner], ":")
	raw, err := ParseShortID(text)
	if err != nil {
		return err
	}
	at[inner] = encode(raw)
	if hasVerb {
		at[inner] += ":" + verb
	}
	return nil
}

// file checks the CID so that a wrong one is named as such, and never travels on.
func (r *Route) file(method, text string, whole bool) error {
	named, err := cid.Parse(text)
	if err != nil {
		return err
	}
	if whole && (method == "GET" || method == "HEAD") {
		r.Operation, r.File = GetFile, named
	}
	return nil
}

// queryIDs are the parameters that are ids, by collection, with the human-readable part of each.
func queryIDs(of string) map[string]string {
	switch of {
	case collectBlocks:
		return map[string]string{"hash": ""}
	case watchBlocks:
		return map[string]string{"account": id.Account, "escrow": id.Escrow}
	case collectEscrows:
		return map[string]string{"owner": id.Account, "subject": id.Job}
	case collectLeases:
		return map[string]string{"leases": id.Lease}
	case collectHosts, collectOffers:
		return map[string]string{"operator": id.Account, "executor": ""}
	}
	return nil
}

func (r *Route) translateQuery(of string) error {
	for parameter, hrp := range queryIDs(of) {
		if r.Query.Get(parameter) == "" {
			continue
		}
		var ids []string
		for _, text := range r.Query[parameter] {
			raw, err := ParseID(hrp, text)
			if err != nil {
				return err
			}
			ids = append(ids, encode(raw[:]))
		}
		query := maps.Clone(r.Query)
		query[parameter] = ids
		r.Query = query
	}
	return nil
}

// Name returns what a path asks for, ids left out. There are few names: strangers choose paths.
func Name(path string) string {
	if len(path) > MaxPath {
		return "/v1/?"
	}
	return name(strings.Split(path, "/"))
}

func name(at []string) string {
	if len(at) <= collection {
		return "/"
	}
	switch at[collection] {
	case "chains", "accounts", collectEscrows, collectLeases, "transactions", collectBlocks,
		watchBlocks, "faucet", "search", "supply", "fees", "scheduler", collectJobs, "market",
		collectOffers, collectHosts, collectInstances, collectFiles, "storage":
	default:
		return "/v1/?"
	}
	out := "/v1/" + at[collection]
	if len(at) < segments {
		return out
	}
	_, verb, _ := strings.Cut(at[object], ":")
	out += "/{id}"
	switch verb {
	case "cancel", "update", "watch", "stat", "list", "pin", "unpin", "setExpiry", "finish",
		"proof", "drain", "undrain":
		out += ":" + verb
	}
	if len(at) > segments && at[collection] == collectFiles {
		return out + "/{path}"
	}
	if len(at) > segments {
		switch at[part] {
		case "logs", "stats", "runs", "tasks", "transactions", "events", collectLeases, "charges",
			partAttempts, "policy":
			out += "/" + at[part]
		}
	}
	if len(at) > inner && at[part] == partAttempts && strings.HasSuffix(at[inner], ":evict") {
		out += "/{id}:evict"
	}
	return out
}
