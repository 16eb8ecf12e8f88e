// Package subject is the grammar of NATS subjects that instances of UCN talk on.
//
//	ucn.v1.<operator>.<service>.<instance>.rpc             sealed requests to one instance
//	ucn.v1.<operator>.<service>.<instance>.<topic>.<type>  events of one instance; types hold dots
//	ucn.v1.reply.<random>                                  replies to one request
//	ucn.v1.job.<job>.<random>                              replies about one job
//
// <operator> is the bech32m text of the operator's account, <instance> the lower-case base32 of
// the instance's ed25519 key without padding. Subjects are addresses, not proofs: what arrives on
// one is judged by its signature.
package subject

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"github.com/united-containers/ucn/kit/id"
)

// Bounds of the parts of a subject, in bytes.
const (
	MaxSubject = 256 // of a whole subject
	MaxService = 16  // of a service name
	MaxType    = 64  // of an event type
)

// The parts that every subject begins with, and the space that clients may listen to.
const (
	prefix      = "ucn.v1."
	ReplyPrefix = prefix + "reply."
	JobPrefix   = prefix + "job."
)

// What token clients may do at a broker: ask instances, and hear replies. The same
// patterns hold for brokers that operators run themselves.
const (
	AllRequests = prefix + "*.*.*.rpc"
	AllReplies  = ReplyPrefix + ">"
	AllJobs     = JobPrefix + ">"
)

// ErrSubject is wrapped by every error of Parse.
var ErrSubject = errors.New("not a subject of this network")

// alphabet is RFC 4648 base32 in lower case: NATS subjects are case-sensitive and people type
// them.
const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

func encoding() *base32.Encoding {
	return base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)
}

// Instance returns the token that names an instance.
func Instance(key [32]byte) string { return encoding().EncodeToString(key[:]) }

// ParseInstance reads what Instance wrote. Only the one canonical text is accepted.
func ParseInstance(text string) ([32]byte, error) {
	raw, err := encoding().DecodeString(text)
	if err != nil || len(raw) != 32 || Instance([32]byte(raw)) != text {
		return [32]byte{}, fmt.Errorf("instance %q: %w", cut(text), ErrSubject)
	}
	return [32]byte(raw), nil
}

// Address says where one service of one running instance is found.
type Address struct {
	Operator [32]byte // operator account
	Service  string   // such as "executor"
	Instance [32]byte // ed25519 key of the instance
}

// String returns what all subjects of the address begin with, without the final dot.
func (a Address) String() string {
	return prefix + id.Bech32(id.Account, a.Operator) + "." + a.Service + "." + Instance(a.Instance)
}

// RPC returns the subject that requests to the instance are published on.
func (a Address) RPC() string { return a.String() + ".rpc" }

// Event returns the subject that an event of the instance is published on.
func (a Address) Event(topic, kind string) string {
	return a.String() + "." + topic + "." + kind
}

// Event is a parsed event subject.
type Event struct {
	Address
	Topic string
	Type  string
}

// ParseEvent reads an event subject. It accepts only what Address.Event writes for valid parts.
func ParseEvent(text string) (Event, error) {
	if len(text) > MaxSubject {
		return Event{}, fmt.Errorf("%d bytes: %w: too long", len(text), ErrSubject)
	}
	rest, ok := strings.CutPrefix(text, prefix)
	parts := strings.SplitN(rest, ".", 5)
	if !ok || len(parts) != 5 || !ValidService(parts[1]) || !ValidType(parts[4]) {
		return Event{}, fmt.Errorf("%q: %w", cut(text), ErrSubject)
	}
	operator, err := id.ParseBech32(id.Account, parts[0])
	if err != nil {
		return Event{}, fmt.Errorf("%q: %w: %w", cut(text), ErrSubject, err)
	}
	instance, err := ParseInstance(parts[2])
	if err != nil {
		return Event{}, err
	}
	e := Event{Topic: parts[3], Type: parts[4]}
	e.Address = Address{Operator: operator, Service: parts[1], Instance: instance}
	if e.Event(e.Topic, e.Type) != text {
		return Event{}, fmt.Errorf("%q: %w: not canonical", cut(text), ErrSubject)
	}
	return e, nil
}

// Events returns the pattern that matches every event of a topic from every instance of a service.
func Events(service, topic string) string {
	return prefix + "*." + service + ".*." + topic + ".>"
}

// Reply returns a fresh subject for the replies to one request: 160 random bits.
func Reply() string { return ReplyPrefix + random() }

// JobReply returns a fresh subject for replies about the job.
func JobReply(job [32]byte) string { return JobPrefix + id.Bech32(id.Job, job) + "." + random() }

// IsReply reports whether a server may publish replies on the subject: it lies in the reply or
// job space, holds no wildcard and is not too long. A request that names another subject would
// turn the server into a publisher of the sender's choice.
func IsReply(text string) bool {
	rest, ok := strings.CutPrefix(text, ReplyPrefix)
	if !ok {
		rest, ok = strings.CutPrefix(text, JobPrefix)
	}
	return ok && len(text) <= MaxSubject && validTokens(rest, 2)
}

// ValidService reports whether name is 1 to MaxService lower-case letters.
func ValidService(name string) bool {
	return len(name) >= 1 && len(name) <= MaxService && strings.IndexFunc(name, func(c rune) bool {
		return c < 'a' || c > 'z'
	}) < 0
}

// ValidType reports whether kind is a dotted name of lower-case letters, digits, '-' and '_',
// at most MaxType bytes and four parts, such as "attempt.changed".
func ValidType(kind string) bool { return len(kind) <= MaxType && validTokens(kind, 4) }

// validTokens reports whether text is 1 to most non-empty dotted tokens of [a-z0-9_-].
func validTokens(text string, most int) bool {
	if strings.Count(text, ".") >= most {
		return false
	}
	for token := range strings.SplitSeq(text, ".") {
		if token == "" || strings.IndexFunc(token, notTokenRune) >= 0 {
			return false
		}
	}
	return true
}

func notTokenRune(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

func random() string {
	var raw [20]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the process instead
	return encoding().EncodeToString(raw[:])
}

func cut(text string) string { return text[:min(len(text), MaxSubject)] }
