// The HTTP peer of tests and examples: a server that says what reached it, and clients that say
// what became of their requests. Output is JSON, a line each.
package main

import (
	"fmt"
	"os"
)

var commands = map[string]func([]string) error{
	"serve":     serve,
	"get":       get,
	"grpc":      callGRPC,
	"ws":        talk,
	"hold":      hold,
	"load":      load,
	"tcp":       dialTCP,
	"tcp-serve": serveTCP,
	"wait":      wait,
}

func main() {
	if len(os.Args) > 1 {
		if run, ok := commands[os.Args[1]]; ok {
			if err := run(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: http-peer serve|get|grpc|ws|hold|load|tcp|tcp-serve|wait ARG...")
	os.Exit(2)
}
