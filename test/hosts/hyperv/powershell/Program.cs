// A console for the PowerShell engine, for machines on which no whole PowerShell can be installed.
//
// The engine is the real one, from its package: parser, language, pipeline, modules, remoting. What is missing are the modules that come
// with a whole PowerShell beside it (Utility, Management, CimCmdlets), so a script that runs here uses the language, .NET and the core
// cmdlets alone. Of pwsh's command line it takes what Firn's bridge and its tests use: "-Command -" reads commands from standard input and
// ends at its end, as pwsh does, "-Command TEXT" runs one, "-SSHServerMode" serves a remote session over standard input and output.

using System;
using System.Collections.Generic;
using System.Linq;
using System.Management.Automation;
using System.Management.Automation.Language;
using System.Management.Automation.Runspaces;
using System.Reflection;

namespace Firn.Test;

public static class Program
{
    private static readonly string[] s_switches =
        ["-nologo", "-noprofile", "-noninteractive", "-noexit"];

    public static int Main(string[] arguments)
    {
        var rest = new Queue<string>(arguments);
        while (rest.TryDequeue(out var argument))
        {
            switch (argument.ToLowerInvariant())
            {
                case var name when s_switches.Contains(name):
                    break;
                case "-executionpolicy":
                    rest.TryDequeue(out _);
                    break;
                case "-sshs" or "-sshservermode":
                    return ServeSession();
                case "-command" or "-c":
                    var text = string.Join(' ', rest);
                    using (var runspace = OpenRunspace())
                    {
                        return text == "-" ? ReadCommands(runspace) : Run(runspace, text) ? 0 : 1;
                    }
                default:
                    Console.Error.WriteLine($"pwsh: {argument} is not known here");
                    return 64;
            }
        }
        return 64;
    }

    private static Runspace OpenRunspace()
    {
        var runspace = RunspaceFactory.CreateRunspace(InitialSessionState.CreateDefault2());
        runspace.Open();
        return runspace;
    }

    private static int ReadCommands(Runspace runspace)
    {
        var pending = "";
        while (Console.In.ReadLine() is { } line)
        {
            pending = pending.Length == 0 ? line : pending + "\n" + line;
            Parser.ParseInput(pending, out _, out var errors);
            if (errors.Any(error => error.IncompleteInput))
            {
                continue;
            }
            Run(runspace, pending);
            pending = "";
        }
        return 0;
    }

    private static bool Run(Runspace runspace, string text)
    {
        using var shell = PowerShell.Create();
        shell.Runspace = runspace;
        shell.AddScript(text);
        try
        {
            foreach (var output in shell.Invoke())
            {
                Console.Out.WriteLine(output);
            }
        }
        catch (RuntimeException exception)
        {
            Console.Error.WriteLine(exception.ErrorRecord);
            return false;
        }
        foreach (var error in shell.Streams.Error)
        {
            Console.Error.WriteLine(error);
        }
        return shell.Streams.Error.Count == 0;
    }

    // The engine keeps this entry to itself, as pwsh is the only one that is meant to call it.
    private static int ServeSession()
    {
        const string Name = "System.Management.Automation.Remoting.Server.StdIOProcessMediator";
        var types = typeof(PowerShell).Assembly.GetTypes();
        var mediator = types.FirstOrDefault(type => type.Name == "SSHProcessMediator")
            ?? types.First(type => type.FullName == Name);
        var run = mediator
            .GetMethods(BindingFlags.Static | BindingFlags.NonPublic | BindingFlags.Public)
            .First(method => method.Name == "Run");
        var parameters = run.GetParameters().Select(parameter =>
            parameter.ParameterType == typeof(string) ? "" : (object?)null);
        run.Invoke(null, parameters.ToArray());
        return 0;
    }
}
