package price

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/tx"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// Errors of this package.
var (
	ErrOverflow = errors.New("amount does not fit 64 bits")
	ErrModel    = errors.New("price model is not known")
	ErrCFPS     = errors.New("price model cfps is not built yet")
	ErrUnused   = errors.New("price is not used by its model and must be 0")
	ErrAboveCap = errors.New("price is above the cap")
)

// Model says how a bill comes about.
type Model uint32

// The models.
const (
	// Linear: every price counts.
	Linear Model = 1
	// Flat: only the price of a run counts; the others are 0.
	Flat Model = 2
	// CFPS is refused until it is built.
	CFPS Model = 3
)

// Prices are what a host asks, in grains per unit. Zero = free.
type Prices struct {
	Model         Model
	WallHour      uint64
	CoreHour      uint64
	MemoryGiBHour uint64
	GiBIn         uint64
	GiBOut        uint64
	DiskGiBHour   uint64
	Run           uint64
	CFPSHour      uint64
}

// Usage is what was used since an attempt began.
type Usage struct {
	WallMS uint64
	CPUNS  uint64
	// KiB x ms of max(reserved, used) memory.
	MemoryKiBMS uint64
	BytesIn     uint64
	BytesOut    uint64
	DiskKiBMS   uint64
	Runs        uint64
	// Information, not billed.
	MemoryPeak uint64
	Unmeasured []string
}

// Resources are what is reserved for an attempt.
type Resources struct {
	// Thousandths of a core.
	CPUMilli uint32
	// Bytes.
	Memory uint64
	Disk   uint64
	// Bytes per second in and out together.
	Network uint64
}

// Validate refuses unknown and unbuilt models and prices that the model does not use.
func (p Prices) Validate() error {
	switch p.Model {
	case Linear:
		if p.CFPSHour != 0 {
			return fmt.Errorf("cfps_hour: %w", ErrUnused)
		}
	case Flat:
		for _, one := range p.named() {
			if one.name != "run" && one.price != 0 {
				return fmt.Errorf("%s: %w", one.name, ErrUnused)
			}
		}
	case CFPS:
		return ErrCFPS
	default:
		return fmt.Errorf("%w: %d", ErrModel, p.Model)
	}
	return nil
}

// CheckCap refuses prices of which one is above the cap's, or whose model is not the one that the
// cap asks for. A cap without a model accepts any.
func (p Prices) CheckCap(most Prices) error {
	if most.Model != 0 && p.Model != most.Model {
		return fmt.Errorf("%w: model %d, cap allows %d", ErrAboveCap, p.Model, most.Model)
	}
	caps := most.named()
	for i, one := range p.named() {
		if one.price > caps[i].price {
			return fmt.Errorf("%w: %s is %d grains, cap %d", ErrAboveCap, one.name, one.price,
				caps[i].price)
		}
	}
	return nil
}

type named struct {
	name  string
	price uint64
}

// named lists the prices by their names in the proto, in the order of their fields.
func (p Prices) named() []named {
	return []named{
		{"wall_hour", p.WallHour}, {"core_hour", p.CoreHour},
		{"memory_gib_hour", p.MemoryGiBHour}, {"gib_in", p.GiBIn}, {"gib_out", p.GiBOut},
		{"disk_gib_hour", p.DiskGiBHour}, {"run", p.Run}, {"cfps_hour", p.CFPSHour},
	}
}

// Append appends the canonical bytes of ucn.job.v1.Prices.
func (p Prices) Append(dst []byte) []byte {
	dst = canon.AppendUint(dst, 1, uint64(p.Model))
	for i, one := range p.named() {
		dst = canon.AppendUint(dst, 2+i, one.price)
	}
	return dst
}

// Hash is the price hash of a lease.
func (p Prices) Hash() tx.Hash { return sha256.Sum256(p.Append(nil)) }

// Append appends the canonical bytes of ucn.job.v1.Usage. Unmeasured must be valid UTF-8.
func (u Usage) Append(dst []byte) []byte {
	for i, v := range []uint64{
		u.WallMS, u.CPUNS, u.MemoryKiBMS, u.BytesIn, u.BytesOut, u.DiskKiBMS, u.Runs, u.MemoryPeak,
	} {
		dst = canon.AppendUint(dst, 1+i, v)
	}
	for _, name := range u.Unmeasured {
		dst = canon.AppendElement(dst, 9, name)
	}
	return dst
}

// Hash is the usage hash of a note.
func (u Usage) Hash() tx.Hash { return sha256.Sum256(u.Append(nil)) }

// PricesFromPB reads the message form; nil gives the zero value.
func PricesFromPB(m *jobv1.Prices) Prices {
	return Prices{
		Model: Model(m.GetModel()), WallHour: m.GetWallHour(), CoreHour: m.GetCoreHour(),
		MemoryGiBHour: m.GetMemoryGibHour(), GiBIn: m.GetGibIn(), GiBOut: m.GetGibOut(),
		DiskGiBHour: m.GetDiskGibHour(), Run: m.GetRun(), CFPSHour: m.GetCfpsHour(),
	}
}

// PB returns the message form.
func (p Prices) PB() *jobv1.Prices {
	return &jobv1.Prices{
		Model: jobv1.PriceModel(p.Model), WallHour: p.WallHour, CoreHour: p.CoreHour,
		MemoryGibHour: p.MemoryGiBHour, GibIn: p.GiBIn, GibOut: p.GiBOut,
		DiskGibHour: p.DiskGiBHour, Run: p.Run, CfpsHour: p.CFPSHour,
	}
}

// UsageFromPB reads the message form; nil gives the zero value.
func UsageFromPB(m *jobv1.Usage) Usage {
	return Usage{
		WallMS: m.GetWallMs(), CPUNS: m.GetCpuNs(), MemoryKiBMS: m.GetMemoryKibMs(),
		BytesIn: m.GetBytesIn(), BytesOut: m.GetBytesOut(), DiskKiBMS: m.GetDiskKibMs(),
		Runs: m.GetRuns(), MemoryPeak: m.GetMemoryPeak(), Unmeasured: m.GetUnmeasured(),
	}
}

// PB returns the message form.
func (u Usage) PB() *jobv1.Usage {
	return &jobv1.Usage{
		WallMs: u.WallMS, CpuNs: u.CPUNS, MemoryKibMs: u.MemoryKiBMS, BytesIn: u.BytesIn,
		BytesOut: u.BytesOut, DiskKibMs: u.DiskKiBMS, Runs: u.Runs, MemoryPeak: u.MemoryPeak,
		Unmeasured: u.Unmeasured,
	}
}

// ResourcesFromPB reads the message form; nil gives the zero value.
func ResourcesFromPB(m *jobv1.Resources) Resources {
	return Resources{
		CPUMilli: m.GetCpuMilli(), Memory: m.GetMemory(), Disk: m.GetDisk(),
		Network: m.GetNetwork(),
	}
}
