package subject_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/bus/subject"
)

func address() subject.Address {
	return subject.Address{
		Operator: [32]byte{1, 2}, Service: "executor", Instance: [32]byte{3, 4},
	}
}

func TestEventRoundTrip(t *testing.T) {
	a := address()
	for _, kind := range []string{"x", "attempt.changed", "a.b.c.d", "a-b_1"} {
		got, err := subject.ParseEvent(a.Event("job", kind))
		want := subject.Event{Address: a, Topic: "job", Type: kind}
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", kind, d)
		}
	}
}

func TestParseEventRefuses(t *testing.T) {
	good := address().Event("job", "attempt.changed")
	for _, text := range []string{
		"", "ucn.v1", address().RPC(), strings.ToUpper(good), good + ".", good + ".*",
		strings.Replace(good, "executor", "exec.utor", 1), strings.Replace(good, "ucn1", "ucn2", 1),
		strings.Replace(good, ".executor.", ".EXECUTOR.", 1), good + strings.Repeat("x", 300),
		strings.Replace(good, "attempt", "", 1), strings.Replace(good, "v1", "v2", 1),
	} {
		if _, err := subject.ParseEvent(text); !errors.Is(err, subject.ErrSubject) {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

func TestInstance(t *testing.T) {
	key := [32]byte{31: 255}
	text := subject.Instance(key)
	if back, err := subject.ParseInstance(text); err != nil || back != key {
		t.Errorf("got %v, %v", back, err)
	}
	last := text[:len(text)-1]
	for _, bad := range []string{"", text + "a", strings.ToUpper(text), last + "x", last + "="} {
		if _, err := subject.ParseInstance(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestIsReply(t *testing.T) {
	cases := map[string]bool{
		subject.Reply():               true,
		subject.JobReply([32]byte{1}): true,
		"ucn.v1.reply.":               false,
		"ucn.v1.reply.>":              false,
		"ucn.v1.reply.*":              false,
		"ucn.v1.job.a.b.c":            false,
		"$JS.API.STREAM.DELETE.x":     false,
		address().RPC():               false,
		"":                            false,
		"ucn.v1.reply.a b":            false,
		"ucn.v1.reply.a\r\nPUB x 1":   false,
		"ucn.v1.reply." + strings.Repeat("a", subject.MaxSubject): false,
	}
	for text, want := range cases {
		if subject.IsReply(text) != want {
			t.Errorf("IsReply(%q) = %v", text, !want)
		}
	}
	if first, second := subject.Reply(), subject.Reply(); first == second {
		t.Error("two replies share a subject")
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add(address().Event("job", "attempt.changed"))
	f.Fuzz(func(t *testing.T, text string) {
		e, err := subject.ParseEvent(text)
		if err == nil && e.Event(e.Topic, e.Type) != text {
			t.Errorf("%q parses but is not canonical", text)
		}
	})
}
