package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// sh [-eux...] [-c PROGRAM [NAME]] [FILE] [ARGUMENT...]; without either it reads standard input.
func sh(args []string) error {
	var options []string
	command := false
	for len(args) > 0 && len(args[0]) > 1 && strings.ContainsRune("-+", rune(args[0][0])) {
		option := args[0]
		args = args[1:]
		if option == "--" {
			break
		}
		if option == "-o" || option == "+o" {
			if len(args) == 0 {
				return errors.New(option + " needs a name")
			}
			options = append(options, option, args[0])
			args = args[1:]
			continue
		}
		if option[0] == '-' && strings.ContainsRune(option, 'c') {
			command = true
			option = strings.ReplaceAll(option, "c", "")
		}
		// An interactive or login shell reads the same standard input here.
		option = strings.NewReplacer("i", "", "l", "", "s", "").Replace(option)
		if len(option) > 1 {
			options = append(options, option)
		}
	}

	var program io.Reader = os.Stdin
	name := "sh"
	switch {
	case command && len(args) == 0:
		return errors.New("-c needs a program")
	case command:
		program = strings.NewReader(args[0])
		args = args[1:]
		if len(args) > 0 {
			name, args = args[0], args[1:]
		}
	case len(args) > 0:
		name = args[0]
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		program, args = file, args[1:]
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	runner, err := interp.New(
		interp.Params(append(append(options, "--"), args...)...),
		interp.StdIO(os.Stdin, os.Stdout, os.Stderr),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc {
			return interp.DefaultExecHandler(2 * time.Second)
		}),
	)
	if err != nil {
		return err
	}
	// Statement by statement, as a shell does: what stands before a mistake has run.
	parser := syntax.NewParser(syntax.Variant(syntax.LangPOSIX))
	var failed error
	parseErr := parser.Stmts(program, func(statement *syntax.Stmt) bool {
		failed = runner.Run(ctx, statement)
		return !runner.Exited() && ctx.Err() == nil
	})
	if ctx.Err() != nil {
		return exit(128 + int(syscall.SIGTERM))
	}
	if parseErr != nil {
		os.Stderr.WriteString(name + ": " + parseErr.Error() + "\n")
		return exit(2)
	}
	var status interp.ExitStatus
	if errors.As(failed, &status) {
		return exit(status)
	}
	return failed
}
