package archtest_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/united-containers/ucn/test/archtest"
)

const root = "../.."

func listTree(t *testing.T) []archtest.Package {
	t.Helper()
	all, err := archtest.List(root, "./...", "./proto/...")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func ours(all []archtest.Package) []archtest.Package {
	return slices.DeleteFunc(slices.Clone(all), func(p archtest.Package) bool {
		return p.ImportPath != archtest.Module &&
			!strings.HasPrefix(p.ImportPath, archtest.Module+"/")
	})
}

func TestImports(t *testing.T) {
	all := listTree(t)
	std := map[string]bool{}
	for _, p := range all {
		std[p.ImportPath] = p.Standard
	}
	mine := ours(all)
	if len(mine) < 10 {
		t.Fatalf("found %d packages; is the root right?", len(mine))
	}
	for _, p := range mine {
		for _, imp := range p.Imports {
			why := archtest.CheckImport(p.ImportPath, imp)
			if why == "" && !strings.HasPrefix(imp, archtest.Module) {
				why = archtest.CheckForeign(p.ImportPath, imp, std[imp])
			}
			if why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, why)
			}
		}
	}
}

func TestEveryPackageHasItsPlace(t *testing.T) {
	for _, p := range ours(listTree(t)) {
		if layer, _ := archtest.Place(p.ImportPath); layer == archtest.LayerOutside {
			t.Errorf("%s stands in no room of the house", p.ImportPath)
		}
	}
}

func TestBinariesLinkOnlyTheirs(t *testing.T) {
	others := func(mine string) []string {
		all := []string{"ledger", "scheduler", "executor", "storage", "gateway"}
		return slices.DeleteFunc(all, func(s string) bool { return s == mine })
	}
	bans := map[string][]string{
		"ledger":    {"go-fuse", "containerregistry"},
		"scheduler": {"go-fuse", "containerregistry", "chain/state"},
		"storage":   {"go-fuse", "chain/state"},
		"executor":  {"nats-server", "chain/state"},
		"gateway":   {"go-fuse", "pebble", "chain/state"},
	}
	for service := range bans {
		for _, other := range others(service) {
			bans[service] = append(bans[service], archtest.Module+"/services/"+other)
		}
	}
	for service, banned := range bans {
		t.Run(service, func(t *testing.T) {
			pkgs, err := archtest.List(root, "./services/"+service+"/cmd/"+service)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pkgs {
				for _, ban := range banned {
					if strings.Contains(p.ImportPath, ban) {
						t.Errorf("the %s binary links %s", service, p.ImportPath)
					}
				}
			}
		})
	}
}

func TestSources(t *testing.T) {
	for _, p := range ours(listTree(t)) {
		comments := 0
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			f, err := archtest.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if f == nil {
				continue
			}
			for _, complaint := range f.Complaints() {
				t.Error(complaint)
			}
			if f.AST.Doc != nil && !f.Test {
				comments++
			}
		}
		checkPackage(t, p, comments)
	}
}

func checkPackage(t *testing.T, p archtest.Package, comments int) {
	t.Helper()
	generated := strings.HasPrefix(p.ImportPath, archtest.ProtoModule) ||
		strings.HasSuffix(p.ImportPath, "/gen") || strings.Contains(p.ImportPath, "/gen/")
	if comments != 1 && !generated && len(p.GoFiles) > 0 {
		t.Errorf("%s has %d package comments, wants one", p.ImportPath, comments)
	}
	if slices.Contains(archtest.BannedNames(), p.Name) {
		t.Errorf("%s: the name %q says nothing", p.ImportPath, p.Name)
	}
}

func TestCheckImport(t *testing.T) {
	const m = archtest.Module
	tests := []struct {
		from, to string
		refused  bool
	}{
		{m + "/chain/state", m + "/chain/trie", false},
		{m + "/chain/state", m + "/kit/run", true},
		{m + "/kit/rpc", m + "/services/ledger", true},
		{m + "/services/ledger", m + "/chain/state", false},
		{m + "/services/ledger", m + "/services/ledger/server", true},
		{m + "/services/ledger/server", m + "/services/ledger", false},
		{m + "/services/ledger/server", m + "/services/ledger/pebble", true},
		{m + "/services/ledger/pebble", m + "/services/ledger/ledgertest", false},
		{m + "/services/ledger/server", m + "/services/scheduler", true},
		{m + "/services/ledger/wire", m + "/services/ledger/pebble", false},
		{m + "/wiring", m + "/services/ledger/wire", false},
		{m + "/cli", m + "/services/ledger", true},
		{m + "/cli", m + "/kit/oci", false},
		{m + "/cmd/ucn", m + "/wiring", false},
	}
	for _, tt := range tests {
		if why := archtest.CheckImport(tt.from, tt.to); (why != "") != tt.refused {
			t.Errorf("CheckImport(%s, %s) = %q, refused wants %v", tt.from, tt.to, why, tt.refused)
		}
	}
}

func TestCheckForeign(t *testing.T) {
	const m = archtest.Module
	tests := []struct {
		from, to string
		std      bool
		refused  bool
	}{
		{m + "/chain/state", "time", true, true},
		{m + "/chain/state", "sort", true, false},
		{m + "/chain/state", "golang.org/x/sync/errgroup", false, true},
		{m + "/services/ledger", "os", true, true},
		{m + "/services/ledger", "google.golang.org/grpc/codes", false, true},
		{m + "/services/ledger/server", "google.golang.org/grpc", false, false},
		{archtest.ProtoModule + "/ucn/chain/v1", "github.com/spf13/cobra", false, true},
	}
	for _, tt := range tests {
		why := archtest.CheckForeign(tt.from, tt.to, tt.std)
		if (why != "") != tt.refused {
			t.Errorf("CheckForeign(%s, %s) = %q, refused wants %v", tt.from, tt.to, why, tt.refused)
		}
	}
}

func TestComplaints(t *testing.T) {
	verify := "package p\nimport x \"crypto/ed25519\"\nvar _ = x.Verify(nil, nil, nil)\n"
	sleep := "package p\nimport \"time\"\nfunc F() { time.Sleep(1) }\n"
	params := "package p\nfunc F(a, b, c, d, e, f int) {}\n"
	function := "package p\nfunc F() {\n" + strings.Repeat("_ = 1\n", 70) + "}\n"
	long := "package p\n" + strings.Repeat("\n", 500)
	tests := []struct{ name, path, src, want string }{
		{"verify", "a.go", verify, "ZIP-215"},
		{"sleep", "a_test.go", sleep, "time.Sleep"},
		{"skip", "a_test.go", "package p\nfunc F(t T) { t.Skip() }\n", "skips"},
		{"init", "a.go", "package p\nfunc init() {}\n", "init"},
		{"global", "a.go", "package p\nvar counter int\n", "counter"},
		{"parameters", "a.go", params, "6 parameters"},
		{"line", "a.go", "package p\n// " + strings.Repeat("x", 100) + "\n", "columns"},
		{"file", "a.go", long, "501 lines"},
		{"function", "a.go", function, "72 lines"},
		{"clean", "a.go", "package p\n\nfunc F() {}\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := archtest.ParseFile(tt.path, []byte(tt.src))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(f.Complaints(), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("complaints %q, want one with %q", got, tt.want)
			}
		})
	}
}

func TestGeneratedIsLeftAlone(t *testing.T) {
	src := "// Code generated by x. DO NOT EDIT.\npackage p\nvar v int\n"
	f, err := archtest.ParseFile("a.pb.go", []byte(src))
	if f != nil || err != nil {
		t.Fatalf("ParseFile = %v, %v, want nil, nil", f, err)
	}
}
