package main

import (
	"context"

	"github.com/united-containers/ucn/services/ledger/wire/wiretest"
)

// transferRounds of every account: 396,000 transfers, some seconds.
const transferRounds = 4

// singleTransfers: single signed transfers through the gRPC API over loopback TCP, durable, with
// state root, 100,000 accounts.
func singleTransfers(ctx context.Context, dir string) ([]figure, error) {
	perSecond, err := wiretest.Single100k(ctx, dir, transferRounds)
	if err != nil {
		return nil, err
	}
	return []figure{{"ledger.single100k_tps", perSecond, "tx/s"}}, nil
}
