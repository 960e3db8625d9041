<?php

/**
 * WP-CLI, as much of it as a command uses.
 */

declare(strict_types=1);

class WP_CLI
{
    /** @var array<string, callable> */
    public static array $commands = [];

    /** @var list<string> */
    public static array $said = [];

    public static function add_command(string $name, callable $command): void
    {
        self::$commands[$name] = $command;
    }

    public static function log(string $line): void
    {
        self::$said[] = $line;
    }

    public static function warning(string $line): void
    {
        self::$said[] = "Warning: {$line}";
    }
}
