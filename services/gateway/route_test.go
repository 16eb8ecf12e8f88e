package gateway_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/services/gateway"
)

func TestParseID(t *testing.T) {
	// Bytes whose base64 differs in both alphabets.
	raw := [32]byte{0xfb, 0xff, 0xfe, 31: 0xff}
	digits := hex.EncodeToString(raw[:])
	good := []struct{ hrp, text string }{
		{id.Job, id.Bech32(id.Job, raw)}, {id.Account, strings.ToUpper(id.Bech32(id.Account, raw))},
		{id.Job, digits}, {"", digits}, {id.Job, strings.ToUpper(digits)},
		{id.Escrow, base64.RawURLEncoding.EncodeToString(raw[:])},
		{"", base64.URLEncoding.EncodeToString(raw[:])},
	}
	for _, tt := range good {
		if got, err := gateway.ParseID(tt.hrp, tt.text); err != nil || got != raw {
			t.Errorf("ParseID(%q, %q) = %x, %v", tt.hrp, tt.text, got, err)
		}
	}
	bad := []struct{ hrp, text string }{
		{id.Job, id.Bech32(id.Account, raw)}, {"", id.Bech32(id.Job, raw)}, {id.Job, ""},
		{id.Job, digits[:62]}, {id.Job, digits[:63] + "g"}, {id.Job, "ucnj1"},
		{id.Job, base64.StdEncoding.EncodeToString(raw[:])},
		{id.Job, strings.Repeat("A", 42) + "B"}, // bits beyond the 32nd byte
		{id.Job, strings.Repeat("A", 44)}, {id.Job, strings.Repeat("q", 1<<20)},
	}
	for _, tt := range bad {
		_, err := gateway.ParseID(tt.hrp, tt.text)
		if !errors.Is(err, gateway.ReasonID) || !errors.Is(err, fault.InvalidArgument) {
			t.Errorf("ParseID(%q, %.80q): error %v", tt.hrp, tt.text, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(id.Bech32(id.Job, [32]byte{1}))
	f.Add(strings.Repeat("ab", 32))
	f.Add(base64.URLEncoding.EncodeToString(make([]byte, 32)))
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := gateway.ParseID(id.Job, text)
		if err != nil {
			return
		}
		forms := []string{id.Bech32(id.Job, raw), hex.EncodeToString(raw[:]),
			base64.URLEncoding.EncodeToString(raw[:]), base64.RawURLEncoding.EncodeToString(raw[:])}
		for _, form := range forms {
			if strings.EqualFold(form, text) {
				return
			}
		}
		t.Errorf("%q reads as %x, which nobody writes so", text, raw)
	})
}

func TestParseShortID(t *testing.T) {
	for text, want := range map[string]string{
		"6162": "ab", "YWI": "ab", "YWI=": "ab", strings.Repeat("61", 64): strings.Repeat("a", 64),
	} {
		if got, err := gateway.ParseShortID(text); err != nil || string(got) != want {
			t.Errorf("ParseShortID(%q) = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "?", strings.Repeat("61", 65)} {
		if _, err := gateway.ParseShortID(text); !errors.Is(err, gateway.ReasonID) {
			t.Errorf("ParseShortID(%q): error %v", text, err)
		}
	}
}

func TestResolve(t *testing.T) {
	raw := [32]byte{0xfb, 0xff, 0xfe, 31: 0xff}
	text, stub := id.Bech32(id.Job, raw), base64.URLEncoding.EncodeToString(raw[:])
	file := cid.OfFile(raw)
	tests := []struct {
		method, path string
		want         gateway.Route
	}{
		{"GET", "/v1/chains/main", gateway.Route{Name: "/v1/chains/{id}"}},
		{"GET", "/v1/jobs/" + text, gateway.Route{Name: "/v1/jobs/{id}", Path: "/v1/jobs/" + stub}},
		{"POST", "/v1/jobs/" + text + ":cancel", gateway.Route{
			Name: "/v1/jobs/{id}:cancel", Path: "/v1/jobs/" + stub + ":cancel"}},
		{"GET", "/v1/jobs/" + text + ":watch", gateway.Route{Operation: gateway.Watch,
			Name: "/v1/jobs/{id}:watch", Path: "/v1/jobs/" + stub + ":watch", Job: raw}},
		{"GET", "/v1/jobs/" + text + "/stats", gateway.Route{Operation: gateway.Stats,
			Name: "/v1/jobs/{id}/stats", Path: "/v1/jobs/" + stub + "/stats", Job: raw}},
		{"GET", "/v1/jobs/" + text + "/logs", gateway.Route{Operation: gateway.Logs,
			Name: "/v1/jobs/{id}/logs", Path: "/v1/jobs/" + stub + "/logs", Job: raw}},
		{"GET", "/v1/hosts", gateway.Route{Name: "/v1/hosts"}},
		{"POST", "/v1/hosts/" + hex.EncodeToString(raw[:]) + ":undrain", gateway.Route{
			Name: "/v1/hosts/{id}:undrain", Path: "/v1/hosts/" + stub + ":undrain"}},
		{"PUT", "/v1/hosts/" + stub + "/policy", gateway.Route{
			Name: "/v1/hosts/{id}/policy", Path: "/v1/hosts/" + stub + "/policy"}},
		{"POST", "/v1/hosts/" + stub + "/attempts/fbff:evict", gateway.Route{
			Name: "/v1/hosts/{id}/attempts/{id}:evict",
			Path: "/v1/hosts/" + stub + "/attempts/-_8=:evict"}},
		{"GET", "/v1/hosts/" + stub + "/secret/x", gateway.Route{
			Name: "/v1/hosts/{id}", Path: "/v1/hosts/" + stub + "/secret/x"}},
		{"GET", "/v1/leases", gateway.Route{Name: "/v1/leases"}},
		{"PUT", "/v1/files", gateway.Route{Operation: gateway.PutFile, Name: "/v1/files"}},
		{"POST", "/v1/files", gateway.Route{Operation: gateway.PutFile, Name: "/v1/files"}},
		{"GET", "/v1/files", gateway.Route{Name: "/v1/files"}},
		{"HEAD", "/v1/files/" + file.String(), gateway.Route{Operation: gateway.GetFile,
			Name: "/v1/files/{id}", File: file}},
		{"DELETE", "/v1/files/" + file.String(), gateway.Route{Name: "/v1/files/{id}"}},
		{"GET", "/v1/files/" + file.String() + ":stat", gateway.Route{
			Name: "/v1/files/{id}:stat"}},
		{"GET", "/v1/jobs/", gateway.Route{Name: "/v1/jobs/{id}"}},
		{"GET", "/v1/jobs/" + text + ":x/y/z", gateway.Route{Name: "/v1/jobs/{id}",
			Path: "/v1/jobs/" + stub + ":x/y/z"}},
		{"GET", "/v1/secret-token-in-a-path", gateway.Route{Name: "/v1/?"}},
	}
	for _, tt := range tests {
		if tt.want.Path == "" {
			tt.want.Path = tt.path
		}
		got, err := gateway.Resolve(tt.method, tt.path, nil)
		if err != nil {
			t.Errorf("%s %s: %v", tt.method, tt.path, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b cid.CID) bool {
			return a == b
		})); diff != "" {
			t.Errorf("%s %s: %s", tt.method, tt.path, diff)
		}
		if name := gateway.Name(tt.path); name != tt.want.Name {
			t.Errorf("Name(%q) = %q", tt.path, name)
		}
	}
}

func TestResolveTranslatesQueries(t *testing.T) {
	raw := [32]byte{0xfb, 0xff, 0xfe}
	asked := url.Values{"hash": {hex.EncodeToString(raw[:])}, "chain": {"main"}}
	got, err := gateway.Resolve("GET", "/v1/blocks", asked)
	if err != nil || got.Query.Get("hash") != base64.URLEncoding.EncodeToString(raw[:]) ||
		got.Query.Get("chain") != "main" {
		t.Errorf("%v, %v", got.Query, err)
	}
	if asked.Get("hash") != hex.EncodeToString(raw[:]) {
		t.Error("the caller's values were changed")
	}
}

func TestParseRange(t *testing.T) {
	whole := func(n int64) gateway.Span { return gateway.Span{Length: n} }
	part := func(first, n int64) gateway.Span {
		return gateway.Span{First: first, Length: n, Partial: true}
	}
	tests := []struct {
		header string
		size   int64
		want   gateway.Span
		none   bool
	}{
		{"", 10, whole(10), false}, {"bytes=0-", 10, part(0, 10), false},
		{"Bytes=2-3", 10, part(2, 2), false}, {"bytes=9-9", 10, part(9, 1), false},
		{"bytes=-1", 10, part(9, 1), false}, {"bytes=-11", 10, part(0, 10), false},
		{"bytes=3-99999999999999", 10, part(3, 7), false},
		{"bytes=3-9223372036854775807", 10, part(3, 7), false},
		{"bytes=3-9999999999999999999999", 10, whole(10), false},
		{"bytes=10-", 10, gateway.Span{}, true}, {"bytes=0-", 0, gateway.Span{}, true},
		{"bytes=-0", 10, gateway.Span{}, true}, {"bytes=-5", 0, gateway.Span{}, true},
		{"bytes=3", 10, whole(10), false}, {"bytes=-", 10, whole(10), false},
		{"bytes=+1-2", 10, whole(10), false}, {"bytes=1-2, 4-5", 10, whole(10), false},
	}
	for _, tt := range tests {
		got, err := gateway.ParseRange(tt.header, tt.size)
		if got != tt.want || tt.none != errors.Is(err, gateway.ReasonRange) ||
			!tt.none && err != nil {
			t.Errorf("ParseRange(%q, %d) = %+v, %v", tt.header, tt.size, got, err)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	f.Add("bytes=1-2", int64(5))
	f.Add("bytes=-3", int64(1))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		got, err := gateway.ParseRange(header, size)
		if err == nil && (got.First < 0 || got.Length < 0 || got.First > size-got.Length ||
			got.Partial && got.Length == 0) {
			t.Errorf("ParseRange(%q, %d) = %+v", header, size, got)
		}
	})
}

func TestCursor(t *testing.T) {
	tests := []struct {
		text string
		want gateway.Cursor
	}{
		{"0-0", gateway.Start()}, {"77-3", gateway.Cursor{Offset: 77, Lines: 3, Counted: true}},
		{"77", gateway.Cursor{Offset: 77}}, {"end", gateway.Cursor{End: true}},
		{"stored-9", gateway.Cursor{Lines: 9, Counted: true, Stored: true}},
	}
	for _, tt := range tests {
		got, err := gateway.ParseCursor(tt.text)
		if err != nil || got != tt.want || got.String() != tt.text {
			t.Errorf("ParseCursor(%q) = %+v, %v, written %q", tt.text, got, err, got)
		}
	}
	for _, text := range []string{"", "x", "-1", "1-", "stored", "stored-x", "1-2-3",
		"99999999999999999999"} {
		if _, err := gateway.ParseCursor(text); !errors.Is(err, gateway.ReasonRequest) {
			t.Errorf("ParseCursor(%q): error %v", text, err)
		}
	}
	zero, err := gateway.ParseCursor("0")
	if from, anew := zero.Read(5, 2).FromStored(); err != nil || anew || from.Lines != 2 {
		t.Errorf("from the beginning: %+v, %v", from, anew)
	}
	middle, err := gateway.ParseCursor("77")
	if from, anew := middle.Read(80, 2).FromStored(); err != nil || !anew || from.Lines != 0 {
		t.Errorf("from the middle: %+v, %v", from, anew)
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add("77-3")
	f.Add("stored-1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := gateway.ParseCursor(text)
		if err != nil {
			return
		}
		if again, err := gateway.ParseCursor(c.String()); err != nil || again != c {
			t.Errorf("%q reads as %+v, written %q, which reads as %+v, %v", text, c, c, again, err)
		}
	})
}

func TestStatus(t *testing.T) {
	for reason, want := range map[fault.Reason]int{
		gateway.ReasonMethod: 405, gateway.ReasonBodyTooLarge: 413, "MESSAGE_TOO_LARGE": 413,
		gateway.ReasonBodyCut: 408, gateway.ReasonRange: 416, "OTHER": 404,
		"RANGE_OUTSIDE_BLOB": 416, "BLOB_TOO_LARGE": 413, "STORAGE_FULL": 507,
		"STORAGE_QUOTA_EXCEEDED": 507, "REFERENCE_PINNED": 409, "IN_DIRECTORY": 409,
		"UPLOAD_FINISHED": 409,
	} {
		if got := gateway.Status(fault.New(fault.NotFound, reason, "x")); got != want {
			t.Errorf("%s: status %d, want %d", reason, got, want)
		}
	}
}
