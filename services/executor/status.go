package executor

import "time"

// AttemptState is what others see of an attempt's life.
type AttemptState string

// The states of an attempt.
const (
	AttemptLeased   AttemptState = "leased"
	AttemptStarting AttemptState = "starting"
	AttemptRunning  AttemptState = "running"
	AttemptEnded    AttemptState = "ended"
)

// EndReason says how an attempt ended.
type EndReason string

// The ways an attempt ends.
const (
	EndCompleted EndReason = "completed"
	EndFailed    EndReason = "failed"    // another exit code than 0, or killed for its limits
	EndCancelled EndReason = "cancelled" // the owner or the scheduler wanted it
	EndExhausted EndReason = "exhausted" // the money, or the trust, is used up
	EndExpired   EndReason = "expired"   // the lease ended
	EndEvicted   EndReason = "evicted"   // this host could not go on
	EndHostLost  EndReason = "host-lost" // the host died under it
	EndRefused   EndReason = "refused"   // never started; nothing is charged
)

// OutputFile is a collected output.
type OutputFile struct {
	Path string
	CID  string
	Size uint64
}

// Outcome is how an attempt ended and what came of it.
type Outcome struct {
	Reason  EndReason
	Code    int // exit code; 128+n for signal n
	Message string
	Outputs []OutputFile
	LogCID  string
	Usage   Metered
	Amount  uint64 // grains due by the final note
}

// Status is one transition of an attempt.
type Status struct {
	Job     JobID
	Run     RunID
	Attempt AttemptID
	State   AttemptState
	Reason  string // for people
	Time    time.Time
	Lease   LeaseID
	Usage   Metered
	Amount  uint64
	Outcome *Outcome  // set when ended
	EvictAt time.Time // when the program is asked to go; zero: it may stay
	// HeldUntil is when the program ends whose lease was superseded; zero: it is not held.
	HeldUntil time.Time
	Continues AttemptID // the attempt whose program this one runs; empty: its own
}

// LogLine is one line of a program's output, or a part of a long one.
type LogLine struct {
	Time    time.Time
	Stream  Stream
	Text    []byte
	Partial bool // the line goes on in the next one
}

// LogChunk is a piece of a program's output.
type LogChunk struct {
	Next  uint64 // offset to go on from
	Lines []LogLine
}

// NoteAsk asks an attached client to countersign a note.
type NoteAsk struct {
	Note   SignedNote
	Prices Prices
}

// Update is what an attached client is told; exactly one field is set.
type Update struct {
	Status *Status
	Log    *LogChunk
	Note   *NoteAsk
}

// Encoder makes wire forms. It is pure.
type Encoder interface {
	// Status makes the "attempt.changed" event.
	Status(s Status) ([]byte, error)
	// Policy makes the "policy.changed" event.
	Policy(c PolicyChange) ([]byte, error)
	// Offer makes the "offer.posted" event; the hash names the offer.
	Offer(o Offer) (payload []byte, hash Hash, err error)
}
