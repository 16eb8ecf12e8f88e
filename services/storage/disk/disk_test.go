package disk_test

import (
	"testing"

	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

func config(dir string, l storage.Limits) disk.Config {
	cfg := disk.Default(dir)
	cfg.Limits = l
	cfg.Reserve = disk.MinReserve
	return cfg
}

func open(t *testing.T, cfg disk.Config) *disk.Disk {
	t.Helper()
	d, err := disk.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, d) })
	return d
}

func closed(t testing.TB, d *disk.Disk) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestDiskKeepsTheContract(t *testing.T) {
	storagetest.Contract(t, func(t *testing.T, l storage.Limits) storage.Store {
		return open(t, config(t.TempDir(), l))
	})
}
