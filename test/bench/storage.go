package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/telemetry"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	storagewire "github.com/united-containers/ucn/services/storage/wire"
)

const (
	smallFile   = 4 << 10
	smallPuts   = 4_000 // by all at once
	serialPuts  = 1_000 // one after the other
	putAccounts = 16
	putsAtOnce  = 4 // of each account
	removeAsk   = 1000
)

// smallFiles: files of 4 KiB put over gRPC and loopback TCP, durable and told, by sixteen accounts
// with four writers each and by one writer, and removed in calls for a thousand.
func smallFiles(ctx context.Context, dir string) ([]figure, error) {
	var figures []figure
	err := withStorage(ctx, filepath.Join(dir, "storage"),
		func(client storagev1.StorageServiceClient) (err error) {
			many, err := putSmall(ctx, client, putAccounts*putsAtOnce, smallPuts)
			if err != nil {
				return err
			}
			one, err := putSmall(ctx, client, 1, serialPuts)
			if err != nil {
				return err
			}
			gone, err := removeSmall(ctx, client)
			figures = []figure{{"storage.small_puts_per_s", many, "files/s"},
				{"storage.small_puts_serial_per_s", one, "files/s"},
				{"storage.removed_per_s", gone, "files/s"}}
			return err
		})
	return figures, err
}

// putSmall puts files by so many writers of sixteen accounts and returns how many a second.
func putSmall(
	ctx context.Context, client storagev1.StorageServiceClient, writers, files int,
) (float64, error) {
	var group errgroup.Group
	began, each := time.Now(), files/writers
	for n := range writers {
		group.Go(func() error { return putEach(asAccount(ctx, n%putAccounts), client, each) })
	}
	err := group.Wait()
	return float64(each*writers) / time.Since(began).Seconds(), err
}

func putEach(ctx context.Context, client storagev1.StorageServiceClient, files int) error {
	data := make([]byte, smallFile)
	if _, err := rand.Read(data); err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	for i := range files {
		binary.BigEndian.PutUint64(data, uint64(i))
		_, err := blob.New(client).Put(ctx, blob.Put{Kind: cid.File, Size: smallFile},
			bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("put file %d: %w", i, err)
		}
	}
	return nil
}

// removeSmall removes what the first account put.
func removeSmall(ctx context.Context, client storagev1.StorageServiceClient) (float64, error) {
	ctx, began, gone := asAccount(ctx, 0), time.Now(), uint64(0)
	ask := &storagev1.RemoveManyRequest{All: true}
	for range 2 * (smallPuts + serialPuts) / removeAsk {
		done, err := client.RemoveMany(ctx, ask)
		if err != nil {
			return 0, fmt.Errorf("remove files: %w", err)
		}
		gone += done.GetRemoved()
		if ask.PageToken = done.GetNextPageToken(); ask.PageToken == "" {
			break
		}
	}
	if gone < serialPuts {
		return 0, fmt.Errorf("only %d files were removed", gone)
	}
	return float64(gone) / time.Since(began).Seconds(), nil
}

// accountToken takes the hexadecimal id of an account for its token: checking tokens is measured
// elsewhere.
type accountToken struct{}

func asAccount(ctx context.Context, n int) context.Context {
	return rpc.WithToken(ctx, hex.EncodeToString([]byte{byte(n)}))
}

// Authenticate implements rpc.Authenticator.
func (accountToken) Authenticate(_ context.Context, token string) (rpc.Caller, error) {
	raw, err := hex.DecodeString(token)
	caller := rpc.Caller{Scopes: []string{"file"}}
	copy(caller.Account[:], raw)
	return caller, err
}

// withStorage serves a storage service with default settings, but for an account's share of events,
// while use runs.
func withStorage(
	ctx context.Context, dir string, use func(storagev1.StorageServiceClient) error,
) (err error) {
	quiet := telemetry.Default()
	quiet.LogLevel = slog.LevelError
	process, err := telemetry.New(ctx, quiet, telemetry.Options{})
	if err != nil {
		return err
	}
	service, err := process.Service("storage")
	if err != nil {
		return err
	}
	cfg := storagewire.Default()
	cfg.Dir, cfg.AnyAccount, cfg.EventBurst = dir, true, 4*smallPuts
	s, err := storagewire.New(ctx, cfg, &instance.Instance{Telemetry: service, Now: time.Now})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, s.Close())
	}
	front, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{
		Auth: accountToken{}, Listener: listener, Log: service.Log})
	if err != nil {
		return errors.Join(err, listener.Close(), s.Close())
	}
	s.Register(front)
	client := rpc.DefaultClient()
	client.Peers = map[string]rpc.Peer{"storage": {Addr: listener.Addr().String()}}
	dialer, err := rpc.NewDialer(client, rpc.ClientDeps{})
	if err != nil {
		return errors.Join(err, listener.Close(), s.Close())
	}
	conn, err := dialer.Dial(ctx, "storage")
	if err != nil {
		return errors.Join(err, listener.Close(), s.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var used error
	var group run.Group
	group.Add("storage", s)
	group.Add("front", front, "storage")
	group.Add("clients", run.Func(func(ctx context.Context, ready func()) error {
		ready()
		used = use(storagev1.NewStorageServiceClient(conn))
		stop()
		return nil
	}), "front")
	return errors.Join(group.Run(ctx, func() {}), used, conn.Close())
}
