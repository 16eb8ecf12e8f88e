package scheduler

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"github.com/united-containers/ucn/chain/price"
)

// Shape stands for all of a specification that decides which offers serve it: what fits one job of
// a shape fits all.
type Shape [8]byte

// Shape returns the specification's shape. It is the same in every process.
func (s *Spec) Shape() Shape {
	h := sha256.New()
	number := func(v uint64) { h.Write(binary.BigEndian.AppendUint64(nil, v)) }
	text := func(t string) { number(uint64(len(t))); h.Write([]byte(t)) }
	text(s.Chain)
	r := s.Resources
	for _, v := range []uint64{uint64(r.CPUMilli), r.Memory, r.Disk, r.Network, s.MaxRate} {
		number(v)
	}
	if s.Notice > 0 {
		text("notice")
		number(uint64(s.Notice))
	}
	number(uint64(len(s.Platforms)))
	for _, p := range s.Platforms {
		text(p)
	}
	number(uint64(len(s.Allow)))
	for _, a := range s.Allow {
		h.Write(a[:])
	}
	number(uint64(len(s.Deny)))
	for _, a := range s.Deny {
		h.Write(a[:])
	}
	number(uint64(len(s.Labels)))
	for _, l := range s.Labels {
		text(l.Name)
		text(l.Value)
	}
	if s.Strict {
		number(1)
	}
	if c := s.Cap; c != nil {
		for _, v := range []uint64{uint64(c.Model), c.WallHour, c.CoreHour, c.MemoryGiBHour, c.GiBIn,
			c.GiBOut, c.DiskGiBHour, c.Run, c.CFPSHour} {
			number(v)
		}
	}
	return Shape(h.Sum(nil))
}

// memoryOfCore is how much memory counts like a core.
const memoryOfCore = 2 << 30

// size is what a run takes of a host, in thousandths of a core or as much memory.
func (s *Spec) size() uint32 {
	memory := s.Resources.Memory / (memoryOfCore / 1000)
	return uint32(max(1, uint64(s.Resources.CPUMilli), min(memory, math.MaxUint32)))
}

// What a bid gains. leadOfDouble is by how much a run stands before another of its owner that pays
// half as much; with 64 classes none is ever more than 32 minutes before its time.
const (
	leadOfDouble = 30 * time.Second
	hour         = time.Hour
	// A share grows by an eighth with each doubling of the bid above 2^20 grains per core hour
	// (0.001 UCN), up to four times.
	firstShare = 20
	lastShare  = firstShare + 24
)

// bid is the class of what a run pays at most for a core hour, or as much memory: the binary
// logarithm of the grains. The least of max_rate, the cap's prices and max_total over the run time
// counts; without a run time max_total is taken to last a day.
func (s *Spec) bid() uint8 {
	span := s.RunTime
	if span <= 0 {
		span = 24 * time.Hour
	}
	high, low := bits.Mul64(s.MaxTotal, uint64(hour))
	rate := uint64(math.MaxUint64)
	if high < uint64(span) {
		rate, _ = bits.Div64(high, low, uint64(span))
	}
	if s.MaxRate != 0 {
		rate = min(rate, s.MaxRate)
	}
	if s.Cap != nil {
		cap := *s.Cap
		if cap.Model == 0 {
			cap.Model = price.Linear
		}
		if most, once, err := price.SingleRun(cap, s.Resources); err == nil {
			rate = min(rate, addUpTo(uint64(most), uint64(once)))
		}
	}
	high, low = bits.Mul64(rate, 1000)
	size := uint64(s.size())
	if high >= size {
		return 64
	}
	perCore, _ := bits.Div64(high, low, size)
	return uint8(bits.Len64(perCore))
}

// lead is how long before its time a run of a bid stands in the queue.
func lead(bid uint8) time.Duration { return time.Duration(bid) * leadOfDouble }

// charge is what a run of a size takes of its owner's share: less for one that pays more.
func charge(size uint32, bid uint8) float64 {
	doublings := min(max(int(bid), firstShare), lastShare) - firstShare
	return float64(size) / (1 + float64(doublings)/8)
}
