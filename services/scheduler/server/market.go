package server

import (
	"context"

	"github.com/united-containers/ucn/kit/fault"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// maxPlatform bounds the name of a platform that is asked for, in bytes.
const maxPlatform = 64

// GetMarket implements SchedulerServiceServer.
func (s *Server) GetMarket(
	ctx context.Context, r *schedulerv1.GetMarketRequest,
) (*schedulerv1.GetMarketResponse, error) {
	if len(r.GetPlatform()) > maxPlatform {
		return nil, fault.New(fault.InvalidArgument, ReasonBadRequest,
			"platform has %d bytes, at most %d", len(r.GetPlatform()), maxPlatform)
	}
	m, err := s.engine.Market(ctx)
	if err != nil {
		return nil, err
	}
	out := &schedulerv1.GetMarketResponse{
		Time: millis(m.Time), Hosts: uint32(m.Hosts), Operators: uint32(m.Operators),
		Free: capacityPB(m.Free), Total: capacityPB(m.Total),
		Pending: uint64(m.Pending.Runs), PendingOwners: uint32(m.Pending.Owners),
		Settled: settledPB(m.Settled), LeaseFee: s.leaseFee,
	}
	for i := range m.Platforms {
		p := &m.Platforms[i]
		if r.GetPlatform() == "" || r.GetPlatform() == p.Platform {
			out.Platforms = append(out.Platforms, platformPB(p))
		}
	}
	return out, nil
}

func platformPB(p *scheduler.PlatformSummary) *schedulerv1.PlatformMarket {
	return &schedulerv1.PlatformMarket{
		Platform: p.Platform, Hosts: uint32(p.Hosts), Operators: uint32(p.Operators),
		Free: capacityPB(p.Free), Total: capacityPB(p.Total),
		Best: p.Best.PB(), Median: p.Median.PB(), Settled: settledPB(p.Settled),
	}
}

func capacityPB(c scheduler.Capacity) *schedulerv1.Capacity {
	return &schedulerv1.Capacity{
		CpuMilli: c.CPUMilli, Memory: c.Memory, Disk: c.Disk, Network: c.Network,
	}
}

func settledPB(s scheduler.Settled) *schedulerv1.Settled {
	return &schedulerv1.Settled{
		Attempts: s.Attempts, Amount: s.Amount, CoreMs: s.CoreMS, WallMs: s.WallMS,
		PerCoreHour: s.PerCoreHour(), PerAttempt: s.PerAttempt(),
	}
}
