package wire_test

import (
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/broker/wire"
	"github.com/united-containers/ucn/kit/config"
)

const good = `
dir: /var/lib/ucn/broker
instance:
  key: k
  seal_key: s
  certificate: c
  genesis: g
  client: {peers: {ledger: {addr: "127.0.0.1:7600"}}}
`

func TestConfiguration(t *testing.T) {
	tests := map[string]struct{ text, field string }{
		"good":         {good, ""},
		"no dir":       {strings.Replace(good, "dir: /var/lib/ucn/broker", "disk: 1GiB", 1), "dir"},
		"no ledger":    {strings.Replace(good, "ledger:", "storage:", 1), "peers.ledger"},
		"half of TLS":  {good + "tls_cert: x\n", "tls_cert"},
		"small disk":   {good + "disk: 1KiB\n", "disk"},
		"no key":       {strings.Replace(good, "  key: k\n", "", 1), "instance.key"},
		"bad operator": {good + "operators: [ucn1x]\n", "operators[0]"},
		"unknown word": {good + "cluster: x\n", "cluster"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := wire.Default()
			err := config.Parse("broker.yaml", []byte(test.text), nil, &file)
			if test.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.field) {
				t.Errorf("got %v, want an error about %s", err, test.field)
			}
		})
	}
}

func TestMainRefuses(t *testing.T) {
	if code := wire.Main([]string{"-config", t.TempDir() + "/none.yaml"}); code != 1 {
		t.Errorf("a missing file: exit %d, want 1", code)
	}
	if code := wire.Main(nil); code != 2 {
		t.Errorf("no file named: exit %d, want 2", code)
	}
}
