package executor

import (
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

// JobID names a job: the hash of its first revision.
type JobID [32]byte

// EscrowID names an escrow on the chain.
type EscrowID [32]byte

// LeaseID names a lease: the hash of its signed preimage.
type LeaseID [32]byte

// Hash is a SHA-256 of something this package does not look into.
type Hash [32]byte

// RunID names one execution of a job: the hex digits of what the scheduler chose.
type RunID string

// Resources are what a job reserves, and cannot exceed.
type Resources struct {
	CPUMilli uint32 `yaml:"cpu_milli"` // thousandths of a core
	Memory   uint64 `yaml:"memory"`    // bytes
	Disk     uint64 `yaml:"disk"`      // bytes of writable root and outputs together
	Network  uint64 `yaml:"network"`   // bytes per second; 0 is no network
}

// PriceModel says how prices make an amount.
type PriceModel int32

// The price models, with the numbers of their wire form.
const (
	PriceUnspecified PriceModel = iota
	PriceLinear
	PriceFlat
	PriceCFPS
)

// MarshalText writes "linear", "flat" or "cfps".
func (m PriceModel) MarshalText() ([]byte, error) {
	switch m {
	case PriceLinear:
		return []byte("linear"), nil
	case PriceFlat:
		return []byte("flat"), nil
	case PriceCFPS:
		return []byte("cfps"), nil
	}
	return nil, nil
}

// UnmarshalText reads what MarshalText writes.
func (m *PriceModel) UnmarshalText(text []byte) error {
	for _, known := range []PriceModel{PriceUnspecified, PriceLinear, PriceFlat, PriceCFPS} {
		if name, _ := known.MarshalText(); string(name) == string(text) {
			*m = known
			return nil
		}
	}
	return fmt.Errorf("price model %.20q is not linear, flat or cfps", text)
}

// Prices in grains. Zero is free.
type Prices struct {
	Model         PriceModel `yaml:"model"`
	WallHour      uint64     `yaml:"wall_hour"`
	CoreHour      uint64     `yaml:"core_hour"`
	MemoryGiBHour uint64     `yaml:"memory_gib_hour"`
	GiBIn         uint64     `yaml:"gib_in"`
	GiBOut        uint64     `yaml:"gib_out"`
	DiskGiBHour   uint64     `yaml:"disk_gib_hour"`
	Run           uint64     `yaml:"run"`
	CFPSHour      uint64     `yaml:"cfps_hour"`
}

// Input is a file or directory of the network that the container sees read-only.
type Input struct {
	CID  string
	Path string // absolute, in the container
}

// JobSpec is what of a job's specification an executor acts on.
type JobSpec struct {
	Owner     sig.AccountID
	Chain     string
	Name      string
	Image     ImageID
	Reference string // of a registry that has the image; empty: the network's storage has it
	Command   []string
	Args      []string
	Env       []string // "NAME=value"
	Secrets   []string // names; become environment variables
	Resources Resources
	Inputs    []Input
	Outputs   []string // absolute paths in the container
	Isolation Isolation
	Platforms []string // empty: any
	RunTime   time.Duration
	// KeepOriginal: a program that was replaced while its host was silent goes on when that is back.
	KeepOriginal bool    `json:",omitempty"`
	Cap          *Prices // highest prices accepted; nil is any
	MaxRate      uint64  // grains per hour; 0 is not said
	// MaxNotice is the longest notice that the owner pays for.
	MaxNotice time.Duration `json:",omitempty"`
	Allow     []sig.AccountID
	Deny      []sig.AccountID
	// Unserved names the fields that are set and that this kind of executor does not serve.
	Unserved []string
}

// Terms is what a scheduler asks a host to sign. Times are ms since 1970, money is grains.
type Terms struct {
	Escrow      EscrowID
	Subject     JobID
	Slot        uint32
	Epoch       uint64
	Budget      uint64
	Trust       uint64 // 0: the host's default
	Holdback    uint64
	AckKeys     []sig.PublicKey
	ClaimWindow uint64 // ms; 0: the host's default
	PlaceBy     uint64
	Until       uint64
	// Supersedes is the lease of the same lane that this one takes the place of; zero: none.
	Supersedes LeaseID `json:",omitzero"`
}

// Lease is the right to charge an escrow, as DOMAIN rules define it.
type Lease struct {
	Escrow      EscrowID
	Subject     JobID
	Slot        uint32
	Epoch       uint64
	Payee       sig.AccountID
	Agent       sig.PublicKey
	Upfront     uint64 // grains
	Rate        uint64 // grains per hour
	Budget      uint64
	Trust       uint64
	Holdback    uint64
	Notice      uint64 // ms
	AckKeys     []sig.PublicKey
	ClaimWindow uint64 // ms
	PriceHash   Hash
	OfferHash   Hash
	PlaceBy     uint64 // ms since 1970
	Until       uint64
}

// SignedLease is a lease with its id and the agent's signature.
type SignedLease struct {
	Lease     Lease
	ID        LeaseID
	Signature sig.Signature
}

// Peer is who asks, as the bus or the token proved it.
type Peer struct {
	// Account that a token acts for; zero when an instance asks in its own name.
	Account sig.AccountID
	// Instance and Operator are set when a certified instance asks.
	Instance sig.PublicKey
	Operator sig.AccountID
}

// Ask is a scheduler's question: will you run this? Whoever makes one has verified the owner's
// signature of the revision and that its hash and the job id are what is said here.
type Ask struct {
	From     Peer
	Job      JobID
	Revision Hash
	Spec     JobSpec
	Run      RunID
	Attempt  AttemptID
	Terms    Terms
	Offer    Hash
	// Continues is an attempt whose running program the lease goes on with; empty: a new one begins.
	Continues AttemptID `json:",omitempty"`
}

// Answer to an Ask: exactly one of the two is set.
type Answer struct {
	Lease    *SignedLease
	Declined *Decline
}

// Decline says why a host does not take a job.
type Decline struct {
	Code    DeclineCode
	Message string
}

// DeclineCode is a stable word for programs.
type DeclineCode string

// Why a host declines.
const (
	DeclineCapacity    DeclineCode = "CAPACITY"    // not enough is free now
	DeclinePrice       DeclineCode = "PRICE"       // the offer is above what the owner accepts
	DeclinePolicy      DeclineCode = "POLICY"      // this host does not want it
	DeclineUnsupported DeclineCode = "UNSUPPORTED" // a field of the spec is not served here
	DeclineInvalid     DeclineCode = "INVALID"     // the spec or the question makes no sense
	DeclineTerms       DeclineCode = "TERMS"       // budget, trust or times do not do
	DeclineOffer       DeclineCode = "OFFER"       // the offer is not this host's, or expired
	DeclineDraining    DeclineCode = "DRAINING"    // no new work
	DeclineClock       DeclineCode = "CLOCK"       // this host's clock is far from the chain's
	// DeclineNotContinuable: what was to go on is not here, is over or ends, or is something else.
	DeclineNotContinuable DeclineCode = "NOT_CONTINUABLE"
)

// Offer is what this host sells now.
type Offer struct {
	Executor  sig.PublicKey
	Payee     sig.AccountID
	Operator  sig.AccountID
	Expires   time.Time
	Prices    Prices
	Free      Resources
	Total     Resources
	Platforms []string
	Isolation []Isolation
	Images    []ImageID // at most MaxOfferImages
	Chains    []string
	Labels    map[string]string
	Host      string
	Notice    time.Duration
	Draining  bool
}

// MaxOfferImages bounds the images an offer names.
const MaxOfferImages = 1000
