package wire_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/event/memory"
	"github.com/united-containers/ucn/kit/event/refetch"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// startBroker runs a broker with the stream of storage and returns a way to connect.
func startBroker(t *testing.T) func(string) (*nats.Conn, error) {
	t.Helper()
	cfg := broker.Default()
	cfg.Dir, cfg.Services = t.TempDir(), []string{"storage"}
	b, err := broker.New(cfg, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, b)
	return b.Connect
}

// peer follows what storage says and hands on what each event tells.
func peer(t *testing.T, conn *nats.Conn, own eventtest.Instance) <-chan *storagev1.FileChange {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	judge := event.JudgeBy(cert.Verifier{Chains: []string{eventtest.Chain}})
	known := event.NewDirectory(judge, nil)
	known.Learn(t.Context(), own.Certificate)
	store, heard := memory.New(), make(chan *storagev1.FileChange, 64)
	c, err := event.NewConsumer(event.ConsumerConfig[*memory.Tx]{
		JetStream: js, Service: "storage", Topics: []event.Topic{event.TopicJob},
		Durable: "test", Cursors: store,
		Verifier: event.NewVerifier(event.VerifierConfig{Certificates: known}),
		Handle: func(_ context.Context, tx *memory.Tx, e event.Incoming) error {
			m := &storagev1.FileChange{}
			if err := e.Payload(m); err != nil {
				return err
			}
			tx.Do(func() { heard <- m })
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, c)
	return heard
}

// TestPeersHearWhatIsKept: what happens to files is said once and in order, over restarts of the
// service; the account's own key tells which file it was, nobody else's does. Who missed it fetches
// it from the service.
func TestPeersHearWhatIsKept(t *testing.T) {
	connect := startBroker(t)
	own := eventtest.NewOperator(1).Instance(t, "storage")
	conn, err := connect("peer")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heard := peer(t, conn, own)
	i := instance.Instance{
		Service: "storage", Identity: own.Identity, Certificate: own.Cert, Chain: eventtest.Chain,
		Connect: connect, Now: time.Now,
	}
	dir, ctx := t.TempDir(), rpc.WithToken(t.Context(), "any")
	data := storagetest.Bytes(1000, 1)
	c, alice := storagetest.CIDOf(cid.File, data), storagetest.Alice()
	var key cid.BlindKey
	for _, step := range []struct {
		do   func(s *blob.Client, raw storagev1.StorageServiceClient) error
		want storagev1.What
	}{
		{func(s *blob.Client, _ storagev1.StorageServiceClient) error {
			_, err := s.Put(ctx, blob.Put{Kind: cid.File}, bytes.NewReader(data))
			return err
		}, storagev1.What_WHAT_KEPT},
		{func(_ *blob.Client, raw storagev1.StorageServiceClient) error {
			_, err := raw.Pin(ctx, &storagev1.PinRequest{Cid: c.String()})
			return err
		}, storagev1.What_WHAT_CHANGED},
		{func(_ *blob.Client, raw storagev1.StorageServiceClient) error {
			_, unpinned := raw.Unpin(ctx, &storagev1.UnpinRequest{Cid: c.String()})
			_, err := raw.Remove(ctx, &storagev1.RemoveRequest{Cid: c.String()})
			page, asked := raw.ListEvents(ctx, &storagev1.ListEventsRequest{})
			copy(key[:], page.GetKey())
			return errors.Join(unpinned, err, asked)
		}, storagev1.What_WHAT_CHANGED},
	} {
		client, raw, stop := startAs(t, dir, i)
		if err := step.do(client, raw); err != nil {
			t.Fatal(err)
		}
		got := <-heard
		stop()
		if got.GetWhat() != step.want || !bytes.Equal(got.GetAccount(), alice[:]) {
			t.Errorf("heard %v, want %v", got, step.want)
		}
	}
	_, _, stop := startAs(t, dir, i) // the removal may not have been sent when it was stopped
	defer stop()
	last := <-heard
	name := key.Blind(c)
	if d := cmp.Diff([]any{storagev1.What_WHAT_REMOVED, string(name[:])},
		[]any{last.GetWhat(), string(last.GetFile())}); d != "" {
		t.Errorf("heard at last (-want +got)\n%s", d)
	}
	fetches(t, conn, own)
	if len(heard) != 0 {
		t.Errorf("%d events came twice", len(heard))
	}
}

// fetches holds that the service says again what somebody missed.
func fetches(t *testing.T, conn *nats.Conn, own eventtest.Instance) {
	t.Helper()
	other := eventtest.NewOperator(2).Instance(t, "scheduler")
	proof, err := bus.InstanceProof(other.Key, other.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	got, err := refetch.NewClient(bus.NewClient(conn, proof, bus.ClientOptions{})).Fill(t.Context(),
		&event.GapError{
			Line:  event.Line{Instance: own.Key.Public(), Topic: event.TopicJob},
			Epoch: 1, Want: 1, Got: 5, Service: "storage", Certificate: own.Cert,
		})
	if err != nil || len(got) != 4 {
		t.Errorf("fetched %d events, %v, want 4", len(got), err)
	}
}
