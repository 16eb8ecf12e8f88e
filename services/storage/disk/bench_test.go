package disk_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

func BenchmarkPut(b *testing.B) {
	for _, kind := range []cid.Kind{cid.File, cid.OCIBlob} {
		for name, size := range map[string]int{"4KiB": 4 << 10, "128MiB": 128 << 20} {
			b.Run(kind.String()+"/"+name, func(b *testing.B) {
				d, err := disk.Open(disk.Default(b.TempDir()))
				if err != nil {
					b.Fatal(err)
				}
				defer closed(b, d)
				data := storagetest.Bytes(size, 1)
				b.SetBytes(int64(size))
				seed := 0
				for b.Loop() {
					seed++
					copy(data, storagetest.Bytes(8, uint64(seed)))
					stored, err := d.Put(b.Context(), storage.Put{Account: storagetest.Alice(),
						Kind: kind}, bytes.NewReader(data))
					if err != nil {
						b.Fatal(err)
					}
					err = d.Remove(b.Context(), storagetest.Alice(), stored.Ref.CID)
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	d, err := disk.Open(disk.Default(b.TempDir()))
	if err != nil {
		b.Fatal(err)
	}
	defer closed(b, d)
	const size = 128 << 20
	stored, err := d.Put(b.Context(), storage.Put{Account: storagetest.Alice(),
		Kind: cid.File}, bytes.NewReader(storagetest.Bytes(size, 1)))
	if err != nil {
		b.Fatal(err)
	}
	for name, r := range map[string]storage.Range{"whole": {}, "range64KiB": {Offset: 77 << 20,
		Length: 64 << 10}} {
		b.Run(name, func(b *testing.B) {
			within, err := r.Within(size)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(within.Length)
			for b.Loop() {
				err := d.Read(b.Context(), storage.Read{Account: storagetest.Alice(),
					CID: stored.Ref.CID, Range: r}, io.Discard)
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
