package fault_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/fault"
)

func TestIsMatchesKindReasonAndSentinel(t *testing.T) {
	sentinel := fault.New(fault.NotFound, "JOB_NOT_FOUND", "no such job")
	err := fmt.Errorf("get job: %w",
		fault.New(fault.NotFound, "JOB_NOT_FOUND", "no job %d", 7).Because(io.ErrUnexpectedEOF))
	cases := []struct {
		name   string
		target error
		want   bool
	}{
		{"kind", fault.NotFound, true},
		{"other kind", fault.Internal, false},
		{"reason", fault.Reason("JOB_NOT_FOUND"), true},
		{"other reason", fault.Reason("JOB_LOST"), false},
		{"sentinel", sentinel, true},
		{"sentinel of other reason", fault.New(fault.NotFound, "X", ""), false},
		{"sentinel of other kind", fault.New(fault.Aborted, "JOB_NOT_FOUND", ""), false},
		{"cause", io.ErrUnexpectedEOF, true},
		{"nil sentinel", (*fault.Error)(nil), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := errors.Is(err, c.target); got != c.want {
				t.Errorf("errors.Is(err, %v) = %v, want %v", c.target, got, c.want)
			}
		})
	}
}

func TestCopiesLeaveTheSentinelAlone(t *testing.T) {
	base := fault.New(fault.Aborted, "BUSY", "try again")
	changed := base.With("height", "7").WithRetry(time.Second).Because(io.EOF)
	if base.Value("height") != "" || base.Retry() != 0 || base.Unwrap() != nil {
		t.Errorf("the sentinel changed: %+v", base)
	}
	if changed.Value("height") != "7" || changed.Retry() != time.Second ||
		!errors.Is(changed, io.EOF) {
		t.Errorf("the copy lacks what was set: %+v", changed)
	}
	changed.Meta()["height"] = "8"
	if changed.Value("height") != "7" {
		t.Error("Meta gave out the fault's own map")
	}
	if d := base.WithRetry(-time.Second).Retry(); d != 0 {
		t.Errorf("negative retry became %v, want 0", d)
	}
}

func TestBoundsAreKept(t *testing.T) {
	e := fault.New(fault.Internal, "BIG", "%s", strings.Repeat("界", fault.MaxMessage))
	if len(e.Message()) > fault.MaxMessage || !utf8.ValidString(e.Message()) {
		t.Errorf("message has %d bytes, valid %v", len(e.Message()), utf8.ValidString(e.Message()))
	}
	for i := range fault.MaxMeta + 5 {
		e = e.With(fmt.Sprint(i), strings.Repeat("x", fault.MaxValue+1))
	}
	if long := fault.New(fault.Internal, "LONG", "").With(strings.Repeat("k", 100), "v"); long.
		Value(strings.Repeat("k", fault.MaxKey)) != "v" {
		t.Errorf("long key became %v", long.Meta())
	}
	if n := len(e.Meta()); n != fault.MaxMeta {
		t.Errorf("%d metadata entries, want %d", n, fault.MaxMeta)
	}
	if n := len(e.Value("0")); n != fault.MaxValue {
		t.Errorf("value has %d bytes, want %d", n, fault.MaxValue)
	}
	if e = e.With("0", "new"); e.Value("0") != "new" {
		t.Error("a full fault does not let an entry be replaced")
	}
	if m := fault.New(fault.Internal, "BAD_TEXT", "a\xffb").Message(); m != "a?b" {
		t.Errorf("invalid UTF-8 became %q", m)
	}
}

func TestReasonValid(t *testing.T) {
	cases := map[fault.Reason]bool{
		"A": true, "TOKEN_EXPIRED": true, "E2BIG": true, "": false, "lower": false, "_A": false,
		"A_": false, "A-B": false, "2A": false, fault.Reason(strings.Repeat("A", 64)): false,
	}
	for r, want := range cases {
		if r.Valid() != want {
			t.Errorf("Reason(%q).Valid() = %v, want %v", string(r), !want, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("New accepted an invalid reason")
		}
	}()
	_ = fault.New(fault.Internal, "not upper", "")
}

func TestKindAndReasonOf(t *testing.T) {
	f := fault.New(fault.OutOfRange, "TOO_HIGH", "lower it")
	type row struct {
		Kind   fault.Kind
		Reason fault.Reason
	}
	cases := []struct {
		err  error
		want row
	}{
		{nil, row{fault.OK, ""}},
		{io.EOF, row{fault.Internal, ""}},
		{f, row{fault.OutOfRange, "TOO_HIGH"}},
		{errors.Join(io.EOF, f), row{fault.OutOfRange, "TOO_HIGH"}},
	}
	for _, c := range cases {
		got := row{fault.KindOf(c.err), fault.ReasonOf(c.err)}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%v: (-want +got)\n%s", c.err, d)
		}
	}
}

func TestKindTable(t *testing.T) {
	cases := []struct {
		kind fault.Kind
		name string
		http int
	}{
		{fault.InvalidArgument, "INVALID_ARGUMENT", 400},
		{fault.Unauthenticated, "UNAUTHENTICATED", 401},
		{fault.PermissionDenied, "PERMISSION_DENIED", 403},
		{fault.NotFound, "NOT_FOUND", 404},
		{fault.AlreadyExists, "ALREADY_EXISTS", 409},
		{fault.ResourceExhausted, "RESOURCE_EXHAUSTED", 429},
		{fault.Unavailable, "UNAVAILABLE", 503},
		{fault.Kind(77), "CODE_77", 500},
	}
	for _, c := range cases {
		if c.kind.String() != c.name || c.kind.HTTP() != c.http {
			t.Errorf("%d: %s %d, want %s %d", c.kind, c.kind, c.kind.HTTP(), c.name, c.http)
		}
	}
	for k := fault.Kind(1); k <= fault.Unauthenticated; k++ {
		if got := fault.New(k, "ANY", "").Kind(); got != k {
			t.Errorf("New(%s) has kind %s", k, got)
		}
	}
	for _, k := range []fault.Kind{fault.OK, 17, 200} {
		if got := fault.New(k, "ANY", "").Kind(); got != fault.Unknown {
			t.Errorf("New(%d) has kind %s, want UNKNOWN", k, got)
		}
	}
}
