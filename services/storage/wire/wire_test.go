package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/storagetest"
	"github.com/united-containers/ucn/services/storage/wire"
)

// always takes every token for Alice's whole storage.
type always struct{}

func (always) Authenticate(context.Context, string) (rpc.Caller, error) {
	return rpc.Caller{Account: storagetest.Alice(), Scopes: []string{"file"}}, nil
}

// start runs a storage service on dir until stop, on real files and a real connection.
func start(t testing.TB, dir string) (client *blob.Client, stop func()) {
	t.Helper()
	client, _, stop = startAs(t, dir, instance.Instance{})
	return client, stop
}

// startAs is start as an instance.
func startAs(t testing.TB, dir string, i instance.Instance) (
	client *blob.Client, raw storagev1.StorageServiceClient, stop func(),
) {
	t.Helper()
	return startWith(t, dir, i, func(*wire.Config) {})
}

// startWith is startAs with another configuration.
func startWith(t testing.TB, dir string, i instance.Instance, change func(*wire.Config)) (
	client *blob.Client, raw storagev1.StorageServiceClient, stop func(),
) {
	t.Helper()
	i.Telemetry = kittest.NewTelemetry(t, kittest.NewLog(t)).MustService(t, "storage")
	cfg := wire.Default()
	cfg.Dir, cfg.AnyAccount = dir, true
	change(&cfg)
	s, err := wire.New(t.Context(), cfg, &i)
	if err != nil {
		t.Fatal(err)
	}
	var pipe rpc.Pipe
	listener, err := pipe.Listen("storage")
	if err != nil {
		t.Fatal(err)
	}
	front, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{Auth: always{},
		Listener: listener, Public: s.PublicMethods()})
	if err != nil {
		t.Fatal(err)
	}
	s.Register(front)
	stopDisk, stopFront := kittest.Run(t, s), kittest.Run(t, front)
	conn, err := rpc.NewPipeDialer(&pipe, rpc.ClientDeps{}).Dial(t.Context(), "storage")
	if err != nil {
		t.Fatal(err)
	}
	raw = storagev1.NewStorageServiceClient(conn)
	return blob.New(raw), raw, func() {
		t.Helper()
		if err := errors.Join(conn.Close(), stopFront(), stopDisk()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBlobsOutliveTheProcess(t *testing.T) {
	dir, data := t.TempDir(), storagetest.Bytes(1<<20, 1)
	ctx := rpc.WithToken(t.Context(), "any")
	client, stop := start(t, dir)
	stored, err := client.Put(ctx, blob.Put{Kind: cid.File}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	client, stop = start(t, dir)
	defer stop()
	r, err := client.Open(ctx, stored.CID)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || r.Close() != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, err = client.Open(ctx, storagetest.CIDOf(cid.File, nil))
	if !errors.Is(err, storage.ReasonNotFound) {
		t.Errorf("missing: %v", err)
	}
}

func TestConfigurationNamesItsField(t *testing.T) {
	for field, spoil := range map[string]func(*wire.Config){
		"dir":         func(c *wire.Config) { c.Dir = "" },
		"quota":       func(c *wire.Config) { c.Quota = 0 },
		"quota_blobs": func(c *wire.Config) { c.QuotaBlobs = -1 },
		"max_blob":    func(c *wire.Config) { c.MaxBlob = 0 },
		"reserve":     func(c *wire.Config) { c.Reserve = 1 },
		"uploads":     func(c *wire.Config) { c.Uploads = 0 },

		"open_uploads":  func(c *wire.Config) { c.OpenUploads = 0 },
		"upload_idle":   func(c *wire.Config) { c.UploadIdle = 0 },
		"collect_every": func(c *wire.Config) { c.CollectEvery = -1 },
		"grace":         func(c *wire.Config) { c.Grace = 0 },
		"event_rate":    func(c *wire.Config) { c.EventRate = 0 },
		"event_rate: 1": func(c *wire.Config) { c.EventRate = 1000.5 },
		"event_rate: N": func(c *wire.Config) { c.EventRate = math.NaN() },
		"event_burst":   func(c *wire.Config) { c.EventBurst = 0 },
		"event_burst: ": func(c *wire.Config) { c.EventBurst = 1<<20 + 1 },
	} {
		c := wire.Default()
		c.Dir = "x"
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestTheShareOfEventsIsConfigured: an account may do what the configuration says.
func TestTheShareOfEventsIsConfigured(t *testing.T) {
	client, _, stop := startWith(t, t.TempDir(), instance.Instance{}, func(c *wire.Config) {
		c.EventRate, c.EventBurst = 0.001, 2
	})
	defer stop()
	ctx := rpc.WithToken(t.Context(), "any")
	for n, want := range []error{nil, nil, storage.ReasonEventRate} {
		_, err := client.Put(ctx, blob.Put{Kind: cid.File}, bytes.NewReader([]byte{byte(n)}))
		if !errors.Is(err, want) {
			t.Errorf("put %d: %v", n, err)
		}
	}
}

func BenchmarkStorage(b *testing.B) {
	const size = 64 << 20
	client, stop := start(b, b.TempDir())
	defer stop()
	ctx := rpc.WithToken(b.Context(), "any")
	data := storagetest.Bytes(size, 1)
	var last cid.CID
	b.Run("put", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			data[0]++
			data[1] += data[0] & 1
			stored, err := client.Put(ctx, blob.Put{Kind: cid.File}, bytes.NewReader(data))
			if err != nil {
				b.Fatal(err)
			}
			last = stored.CID
		}
	})
	b.Run("get", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			r, err := client.Open(ctx, last)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestAloneItNeedsALedger: without one, keys that an account has changed would go on working.
func TestAloneItNeedsALedger(t *testing.T) {
	f := &wire.File{Config: wire.Default()}
	f.Dir = t.TempDir()
	i := &f.Instance
	i.Broker = "nats://127.0.0.1:7622"
	i.Key, i.SealKey, i.Certificate, i.Genesis = "k", "s", "c", "g"
	var wrong *config.Error
	if err := f.Validate(); !errors.As(err, &wrong) ||
		wrong.Field != "instance.client.peers.ledger" {
		t.Errorf("got %v", err)
	}
	i.Client.Peers = map[string]rpc.Peer{"ledger": {Addr: "127.0.0.1:7600"}}
	if err := f.Validate(); err != nil {
		t.Error(err)
	}
	i.Broker = ""
	if err := f.Validate(); !errors.As(err, &wrong) || wrong.Field != "instance.broker" {
		t.Errorf("without a broker: %v", err)
	}
}
