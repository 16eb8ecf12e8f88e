package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/services/scheduler"
)

// claimsWithin bounds how long the claims may take.
const claimsWithin = 2 * time.Minute

// claimRuns measures how many claims a second the scheduler looks after when those of many leases
// are due at once: asked for on a real ledger over loopback TCP and written down on a real disk.
// The leases still run, so each claim is also written anew.
func claimRuns(ctx context.Context, dir string) (_ []figure, err error) {
	p := &placing{}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.prepare(ctx, dir); err != nil {
		return nil, err
	}
	if _, _, err := p.run(ctx); err != nil {
		return nil, err
	}
	if err := p.claim(ctx); err != nil {
		return nil, err
	}
	took, err := p.settle(ctx)
	if err != nil {
		return nil, err
	}
	return []figure{{"scheduler.claims_per_s", placeJobs / took.Seconds(), "1/s"}}, nil
}

// claim writes down a claim that is due of each lease that was placed.
func (p *placing) claim(ctx context.Context) error {
	var after job.ID
	for left := placeJobs; left > 0; {
		ids, err := p.jobs.Live(ctx, after, scheduler.MaxClaims)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			return fmt.Errorf("%d of %d jobs are not live", left, placeJobs)
		}
		var claims []scheduler.Claim
		for _, id := range ids {
			j, err := p.jobs.Job(ctx, id)
			if err != nil {
				return err
			}
			lease := j.Current().Current().Lease.ID
			claims = append(claims, scheduler.Claim{Lease: lease, Due: time.Now()})
			after = id
		}
		if err := p.jobs.Claimed(ctx, nil, claims); err != nil {
			return err
		}
		left -= len(ids)
	}
	return nil
}

// settle runs the engine until no claim is due, and returns how long that took.
func (p *placing) settle(ctx context.Context) (took time.Duration, err error) {
	engine, err := p.engine()
	if err != nil {
		return 0, err
	}
	running, stop := context.WithTimeout(ctx, claimsWithin)
	defer stop()
	ended := make(chan error, 1)
	var began time.Time
	ready := make(chan struct{})
	go func() { ended <- engine.Run(running, func() { began = time.Now(); close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		return 0, errors.Join(errors.New("the engine ended"), err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for due := placeJobs; due > 0; {
		select {
		case <-tick.C:
		case err := <-ended:
			return 0, errors.Join(fmt.Errorf("claims are left after %s", time.Since(began)), err)
		}
		left, err := p.jobs.Claims(ctx, scheduler.Claim{}, began, 1)
		if err != nil {
			return 0, err
		}
		due = len(left)
	}
	took = time.Since(began)
	stop()
	return took, <-ended
}
