// Busybox is one static program under many names: a POSIX shell and the few tools that a helper
// pod needs. It stands in for the busybox image where images are built from Go modules.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

var applets map[string]func([]string) error

func init() {
	applets = map[string]func([]string) error{
		"cat": cat, "chmod": chmod, "cp": cp, "echo": echo, "env": env,
		"false": func([]string) error { return exit(1) }, "hostname": hostname, "id": id,
		"ls": ls, "mkdir": mkdir, "nslookup": nslookup, "rm": rm, "sh": sh, "sleep": sleep,
		"stat": stat, "touch": touch, "true": func([]string) error { return nil }, "wget": wget,
	}
}

// exit is an error that carries nothing but the exit status.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if name == "busybox" {
		if len(args) == 0 {
			names := make([]string, 0, len(applets))
			for applet := range applets {
				names = append(names, applet)
			}
			sort.Strings(names)
			fmt.Println(strings.Join(names, "\n"))
			return
		}
		name, args = args[0], args[1:]
	}
	applet, known := applets[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: applet not found\n", name)
		os.Exit(127)
	}
	err := applet(args)
	if status, ok := err.(exit); ok {
		os.Exit(int(status))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
