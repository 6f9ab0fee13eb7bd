package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/services/quash/dev"
)

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Which Quash this is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			version, revision := "devel", ""
			if bi, ok := debug.ReadBuildInfo(); ok {
				if v := bi.Main.Version; v != "" && v != "(devel)" {
					version = v
				}
				for _, s := range bi.Settings {
					if s.Key == "vcs.revision" {
						revision = s.Value
					}
				}
			}
			v := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			if revision != "" {
				v["revision"] = revision
			}
			return a.print(v, func() {
				a.fields("quash", version, "revision", revision, "go", runtime.Version(), "platform", runtime.GOOS+"/"+runtime.GOARCH)
			})
		},
	}
}

func (a *app) devCmd() *cobra.Command {
	cfg := dev.Config{}
	c := &cobra.Command{
		Use: "dev", Short: "All of Quash in one process, on this machine only",
		Long: "All of Quash in one process: issuer, rotator, revocation, an embedded NATS with\nJetStream on disk, a Redis-protocol server, and a guarded demo resource server.\nIt listens on loopback only. What is in its directory survives.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return &exit{Usage, err}
			}
			if a.output != asTable {
				cfg.Told = func(p dev.Places) error { return a.print(p, nil) }
				return dev.Run(cmd.Context(), cfg, a.env.Err)
			}
			return dev.Run(cmd.Context(), cfg, a.env.Out)
		},
	}
	f := c.PersistentFlags()
	f.StringVar(&cfg.DataDir, "data", ".quash", "the directory for all data")
	c.Flags().StringVar(&cfg.Listen, "listen", "127.0.0.1:8420", "address of all APIs; port 0: any, and then kept")
	c.Flags().StringVar(&cfg.DemoListen, "demo-listen", "127.0.0.1:8421", "address of the demo resource server; port 0: any, and then kept")
	c.Flags().StringVar(&cfg.SecondPerson, "second-person", "never", "which revocations and holds need two people: auto, always or never")
	c.AddCommand(&cobra.Command{
		Use: "reset", Short: "Delete everything in the directory of quash dev", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := dev.Reset(cfg.DataDir); err != nil {
				return err
			}
			return a.print(map[string]string{"reset": cfg.DataDir}, func() { a.fields("reset", cfg.DataDir) })
		},
	})
	return c
}
