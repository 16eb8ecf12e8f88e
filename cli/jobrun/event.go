package jobrun

import (
	"time"

	"github.com/united-containers/ucn/cli/amount"
)

// Kind says what an event tells.
type Kind string

// The kinds of events, in about the order they come.
const (
	KindSubmitted Kind = "submitted" // the escrow is open and the job is queued
	KindState     Kind = "state"     // state, reason, host or attempt changed
	KindLog       Kind = "log"       // a line of output
	KindNote      Kind = "note"      // usage was checked and countersigned
	KindRefused   Kind = "refused"   // a note was not countersigned
	KindWarning   Kind = "warning"   // something the owner should know
	KindOutput    Kind = "output"    // an output was saved
	KindResult    Kind = "result"    // the end; the report follows
)

// Event is one thing that happened to a job. Its JSON form is a line of --json; field names are
// stable, amounts are text in UCN, ids bech32 or hexadecimal.
type Event struct {
	Time time.Time `json:"time"`
	Kind Kind      `json:"event"`
	Job  string    `json:"job,omitempty"`

	Escrow  string `json:"escrow,omitempty"`
	TraceID string `json:"trace_id,omitempty"`
	Name    string `json:"name,omitempty"`
	// Platforms of the hosts that the job is for, as signed; empty is any.
	Platforms []string `json:"platforms,omitempty"`

	State   string `json:"state,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Host    string `json:"host,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	Lease   string `json:"lease,omitempty"`

	Stream  string `json:"stream,omitempty"`
	Text    string `json:"text,omitempty"`
	Partial bool   `json:"partial,omitempty"`

	// Amount is what is due by the newest note that was countersigned, all attempts together.
	Amount *amount.Amount `json:"amount,omitempty"`
	Usage  *Usage         `json:"usage,omitempty"`

	Path string `json:"path,omitempty"`
	File string `json:"file,omitempty"`
	CID  string `json:"cid,omitempty"`
	Size uint64 `json:"size,omitempty"`

	Report *Report `json:"report,omitempty"`
}

// View shows events. It is called from one goroutine at a time, in order, and does not block for
// long.
type View interface {
	Event(e Event)
}

// Usage is cumulative since an attempt began.
type Usage struct {
	WallMS      uint64   `json:"wall_ms"`
	CPUNS       uint64   `json:"cpu_ns"`
	MemoryKiBMS uint64   `json:"memory_kib_ms"`
	MemoryPeak  uint64   `json:"memory_peak"`
	BytesIn     uint64   `json:"bytes_in"`
	BytesOut    uint64   `json:"bytes_out"`
	DiskKiBMS   uint64   `json:"disk_kib_ms"`
	Runs        uint64   `json:"runs"`
	Unmeasured  []string `json:"unmeasured,omitempty"`
}

// Report is what became of a job.
type Report struct {
	Job     string `json:"job"`
	Name    string `json:"name"`
	Escrow  string `json:"escrow"`
	TraceID string `json:"trace_id,omitempty"`
	State   string `json:"state"`
	// Result is how it ended, such as "completed", Reason a sentence about it.
	Result   string   `json:"result,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	ExitCode int32    `json:"exit_code"`
	Outputs  []Output `json:"outputs"`
	LogCID   string   `json:"log_cid,omitempty"`
	Bill     *Bill    `json:"bill,omitempty"`
	// ClosesLater: the escrow is closed by a later command of the wallet that signs anyway.
	ClosesLater bool `json:"escrow_closes_later,omitempty"`
	// Warnings tell what did not go as it should, the job's own end aside.
	Warnings []string `json:"warnings,omitempty"`
}

// Completed reports whether the job did what it was for.
func (r *Report) Completed() bool { return r.Result == "completed" }

// Output is a collected file.
type Output struct {
	Path string `json:"path"`
	CID  string `json:"cid"`
	Size uint64 `json:"size"`
	// File is where it was saved here; empty if it was not.
	File string `json:"file,omitempty"`
}

// Bill is what the job cost and where the money is.
type Bill struct {
	Escrow  string       `json:"escrow"`
	Charges []ChargeLine `json:"charges"`
	// Paid to hosts, as proven by the charges' receipts.
	Paid amount.Amount `json:"paid"`
	// LeaseFees went to the scheduler for placing leases, as proven by their receipts.
	LeaseFees amount.Amount `json:"lease_fees"`
	// Refunded came back from the escrow; Locked is its deposit while it is not closed.
	Refunded amount.Amount `json:"refunded"`
	Locked   amount.Amount `json:"locked"`
	Closed   bool          `json:"escrow_closed"`
	// Held is what hosts get once the owner accepts the work, or at Accepts by silence.
	Held    amount.Amount `json:"held_back"`
	Accepts *time.Time    `json:"held_back_until,omitempty"`
	// Fees of the owner's own transactions for this job.
	Fees amount.Amount `json:"fees"`
	// Before the escrow was opened; absent if another command opened it.
	Before *amount.Amount `json:"balance_before,omitempty"`
	After  amount.Amount  `json:"balance_after"`
	// Proofs counts receipts whose proofs were verified against certified headers.
	Proofs int `json:"proofs_verified"`
}

// ChargeLine is one charge of the bill.
type ChargeLine struct {
	Host          string        `json:"host"`
	Lease         string        `json:"lease"`
	Transaction   string        `json:"transaction"`
	Block         uint64        `json:"block"`
	Time          time.Time     `json:"time"`
	Usage         *Usage        `json:"usage,omitempty"`
	Prices        *Prices       `json:"prices,omitempty"`
	Cumulative    amount.Amount `json:"cumulative"`
	Paid          amount.Amount `json:"paid"`
	Unpaid        amount.Amount `json:"unpaid"`
	Bound         string        `json:"bound,omitempty"`
	Countersigned bool          `json:"countersigned"`
	Final         bool          `json:"final"`
	ProofVerified bool          `json:"proof_verified"`
}

// Prices of a lease, in UCN per unit.
type Prices struct {
	Model         string        `json:"model"`
	WallHour      amount.Amount `json:"wall_hour"`
	CoreHour      amount.Amount `json:"core_hour"`
	MemoryGiBHour amount.Amount `json:"memory_gib_hour"`
	GiBIn         amount.Amount `json:"gib_in"`
	GiBOut        amount.Amount `json:"gib_out"`
	DiskGiBHour   amount.Amount `json:"disk_gib_hour"`
	Run           amount.Amount `json:"run"`
}
