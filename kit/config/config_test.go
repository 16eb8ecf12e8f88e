package config_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/config"
)

type listen struct {
	Addr  string        `yaml:"addr"`
	Port  int           `yaml:"port"`
	Drain time.Duration `yaml:"drain"`
	Max   config.Size   `yaml:"max"`
}

func (l listen) Validate() error {
	if l.Port < 1 || l.Port > 65535 {
		return config.Invalid("port", "%d is not between 1 and 65535", l.Port)
	}
	return nil
}

type tuning struct {
	Workers uint8 `yaml:"workers"`
}

type settings struct {
	Name    string            `yaml:"name"`
	On      bool              `yaml:"on"`
	Ratio   float64           `yaml:"ratio"`
	Listen  listen            `yaml:"listen"`
	Peers   []listen          `yaml:"peers"`
	Labels  map[string]string `yaml:"labels"`
	Key     config.SecretFile `yaml:"key"`
	Extra   *listen           `yaml:"extra"`
	Hidden  string            `yaml:"-"`
	Untyped string
	Tuning  tuning `yaml:",inline"`
}

func defaults() settings {
	return settings{
		Name: "local", Ratio: 0.5,
		Listen: listen{Addr: "127.0.0.1", Port: 7000, Drain: time.Second, Max: config.MiB},
		Peers:  []listen{{Port: 1}},
	}
}

func (s *settings) Validate() error {
	errs := []error{config.Under("listen", s.Listen.Validate())}
	if s.Name == "" {
		errs = append(errs, config.Invalid("name", "must not be empty"))
	}
	return errors.Join(errs...)
}

func environment(name string) (string, bool) {
	value, set := map[string]string{
		"PORT": "7100", "EMPTY": "", "NAME": "a: b", "NULL": "null", "YES": "true",
		"LONG": strings.Repeat("x", config.MaxValue+1),
	}[name]
	return value, set
}

func TestParse(t *testing.T) {
	cases := []struct {
		name, text string
		change     func(s *settings)
	}{
		{"empty", "", func(*settings) {}},
		{"only a comment", "# nothing\n", func(*settings) {}},
		{"sections left empty", "listen:\npeers:\nlabels:\n", func(*settings) {}},
		{"values", "name: x\non: true\nratio: 1\nlisten: {drain: 1m30s, max: 64MiB}\n" +
			"key: /run/key\nuntyped: u\nworkers: 9\n", func(s *settings) {
			s.Name, s.On, s.Ratio, s.Key, s.Untyped = "x", true, 1, "/run/key", "u"
			s.Listen.Drain, s.Listen.Max = 90*time.Second, 64*config.MiB
			s.Tuning.Workers = 9
		}},
		{"list replaces", "peers: [{port: 5}, {addr: h}]", func(s *settings) {
			s.Peers = []listen{{Port: 5}, {Addr: "h"}}
		}},
		{"table", "labels: {a: 1, b: two}", func(s *settings) {
			s.Labels = map[string]string{"a": "1", "b": "two"}
		}},
		{"pointer", "extra: {port: 5}", func(s *settings) { s.Extra = &listen{Port: 5} }},
		{"variables", "name: ${NAME}\non: ${YES}\nlisten: {port: '${PORT}'}",
			func(s *settings) { s.Name, s.On, s.Listen.Port = "a: b", true, 7100 }},
		{"inside text", "name: a-${PORT}-$$-$x-${EMPTY:-e}-${NOPE:-}-$",
			func(s *settings) { s.Name = "a-7100-$-$x-e--$" }},
		{"empty and null variables are text", "name: ${NULL}\nuntyped: ${EMPTY}",
			func(s *settings) { s.Name = "null" }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, want := defaults(), defaults()
			c.change(&want)
			if err := config.Parse("ucn.yaml", []byte(c.text), environment, &got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"unknown", "name: x\nlisten:\n  prot: 1\n",
			"ucn.yaml:3: listen.prot: unknown field; known here: addr, port, drain, max"},
		{"hidden", "hidden: x", "ucn.yaml:1: hidden: unknown field"},
		{"repeated", "name: x\non: true\nname: y\n", "ucn.yaml:3: name: given before in line 1"},
		{"repeated in table", "labels: {a: 1,\n a: 2}", "ucn.yaml:2: labels.a: given before"},
		{"not a number", "listen:\n  port: many", `ucn.yaml:2: listen.port: "many" is not a whole`},
		{"quoted number", "listen: {port: '7'}", `"7" is not a whole number`},
		{"too big", "workers: 256", `ucn.yaml:1: workers: "256" is not a whole number`},
		{"duration without unit", "listen: {drain: 30}", `"30" is not a duration such as`},
		{"size", "peers:\n- {port: 1}\n- max: 1XB", `ucn.yaml:3: peers[1].max: "1XB" is not a`},
		{"bool", "on: perhaps", `"perhaps" is not a bool`},
		{"no value", "name:\n", "ucn.yaml:1: name: has no value"},
		{"list for struct", "listen: [1]", "listen: wants key: value pairs"},
		{"scalar for list", "peers: 3", "peers: wants a list"},
		{"map for scalar", "name: {a: b}", "name: wants a single value"},
		{"key not text", "? [a]\n: b\n", "a key must be plain text"},
		{"alias", "name: &a x\nuntyped: *a", "anchors and aliases are not allowed"},
		{"merge", "<<: {name: x}", "unknown field"},
		{"two documents", "name: x\n---\nname: y", "more than one"},
		{"broken", "name: [", "not valid YAML"},
		{"unset", "name: x\nuntyped: ${NOPE}", "ucn.yaml:2: untyped: environment variable NOPE is"},
		{"not closed", "name: ${PORT", "not closed"},
		{"bad name", "name: ${1-x}", "does not name a variable"},
		{"long", "name: ${LONG}", "longer than"},
		{"empty for number", "listen: {port: '${EMPTY}'}", `"" is not a whole number`},
		{"invalid", "name: x\nlisten:\n  port: 99999", "ucn.yaml:3: listen.port: 99999 is not"},
		{"two invalid", "name: ''\nlisten: {port: -1}", "ucn.yaml:1: name: must not be empty"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := defaults()
			err := config.Parse("ucn.yaml", []byte(c.text), environment, &got)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v\nwant %s", err, c.want)
			}
			var one *config.Error
			if !errors.As(err, &one) || one.File != "ucn.yaml" {
				t.Errorf("error %v is no config.Error that names the file", err)
			}
		})
	}
}

func TestParseReportsSeveralMistakesAtOnce(t *testing.T) {
	got := defaults()
	err := config.Parse("f", []byte("x: 1\ny: 2\nname: z"), nil, &got)
	if err == nil || !strings.Contains(err.Error(), "f:1: x") ||
		!strings.Contains(err.Error(), "f:2: y") {
		t.Errorf("error %v, want both lines", err)
	}
}

func TestDepthAndSizeAreBounded(t *testing.T) {
	type tree struct {
		Down *tree `yaml:"down"`
	}
	type rooted struct {
		Root tree `yaml:"root"`
	}
	var deep rooted
	text := "root: " + strings.Repeat("{down: ", config.MaxDepth+5) + strings.Repeat("}",
		config.MaxDepth+5)
	if err := config.Parse("f", []byte(text), nil, &deep); err == nil ||
		!strings.Contains(err.Error(), "levels") {
		t.Errorf("deep nesting: error %v", err)
	}
	big := defaults()
	if err := config.Parse("f", make([]byte, config.MaxFile+1), nil, &big); err == nil ||
		!strings.Contains(err.Error(), "larger") {
		t.Errorf("big file: error %v", err)
	}
}

func TestLoadAndWriteRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ucn.yaml")
	want := defaults()
	want.Labels = map[string]string{"zone": "$$literal"}
	var text bytes.Buffer
	if err := config.Write(&text, want); err != nil {
		t.Fatal(err)
	}
	t.Setenv("UCN_TEST_ZONE", "north")
	changed := strings.ReplaceAll(text.String(), "$$literal", "${UCN_TEST_ZONE}")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	var got settings
	if err := config.Load(path, &got); err != nil {
		t.Fatal(err)
	}
	want.Labels["zone"] = "north"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if err := config.Load(path+".missing", &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: error %v", err)
	}
}

func TestSize(t *testing.T) {
	good := map[string]config.Size{
		"0": 0, "512": 512, "512B": 512, "64KiB": 64 * config.KiB, "1.5GiB": 3 * config.GiB / 2,
		"10GB": 10e9, "2 MiB": 2 * config.MiB, "0.000001TB": 1e6, "8388607TiB": 8388607 * config.TiB,
	}
	for text, want := range good {
		if got, err := config.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "-1", "+1", "B", "1.5B", "1.", ".5MiB", "1e3", "8388608TiB", "9223372036854775808",
		"1.1234567GiB", "0x10", "1 000", "1mib", "8388607.999999TiB",
	} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
	for size, want := range map[config.Size]string{
		0: "0B", 1: "1B", 1536: "1536B", 3 * config.KiB: "3KiB", config.TiB: "1TiB",
	} {
		if size.String() != want {
			t.Errorf("%d is written %s, want %s", int64(size), size, want)
		}
	}
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) config.SecretFile {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return config.SecretFile(path)
	}
	for content, want := range map[string]string{
		"s3cret": "s3cret", "s3cret\n": "s3cret", "s3cret\r\n": "s3cret", "a\n\n": "a\n",
	} {
		if got, err := write("good", content).Read(); err != nil || string(got) != want {
			t.Errorf("%q reads as %q, %v", content, got, err)
		}
	}
	if _, err := config.SecretFile("").Read(); !errors.Is(err, config.ErrNoSecret) {
		t.Errorf("no path: error %v", err)
	}
	if _, err := config.SecretFile(dir + "/none").Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
	for _, content := range []string{"", "\n", strings.Repeat("x", config.MaxSecret+1)} {
		if _, err := write("bad", content).Read(); err == nil {
			t.Errorf("a secret of %d bytes was accepted", len(content))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("name: ${NAME}\nlisten: {port: 1, max: 1GiB}\npeers: [{drain: 1s}]")
	f.Add("a: &x [*x]")
	f.Add("labels: {? {a: b} : c}")
	f.Add("extra:\n  <<: {port: 1}")
	f.Fuzz(func(t *testing.T, text string) {
		got := defaults()
		err := config.Parse("f", []byte(text), environment, &got)
		if err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("error %q does not name the file", err)
		}
		if err == nil && got.Validate() != nil {
			t.Error("an invalid configuration was accepted")
		}
	})
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5GiB")
	f.Add("9223372036854775807")
	f.Fuzz(func(t *testing.T, text string) {
		size, err := config.ParseSize(text)
		if err != nil {
			return
		}
		if again, err := config.ParseSize(size.String()); size < 0 || err != nil || again != size {
			t.Errorf("%q reads as %d, written %s, read again %d, %v", text, size, size, again, err)
		}
	})
}
