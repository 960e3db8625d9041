<?php

declare(strict_types=1);

namespace PMP\Analytics\Reports;

/**
 * The mesh's paths of reports: those that a session of its own dashboard opens, rendered from its contracts into reports.json.
 */
final class Paths
{
    /**
     * @param list<string> $templates Such as /api/v1/courses/{id}/performance.
     */
    public function __construct(private readonly array $templates)
    {
    }

    public static function of_the_mesh(string $plugin_file): self
    {
        return new self((array) wp_json_file_decode(dirname($plugin_file) . '/reports.json'));
    }

    /**
     * @param string $path Decoded.
     * @return string The path of the call, encoded; empty if it is no report.
     */
    public function find(string $path): string
    {
        foreach ($this->templates as $template) {
            // A variable is one part of a path, which can't lead elsewhere as `..` would.
            $pattern = preg_replace('/\\\\\{\w+\\\\\}/', '(?!\.+(?:/|$))[^/]+', preg_quote($template, '~'));
            if (preg_match("~^{$pattern}$~D", $path) === 1) {
                return implode('/', array_map(rawurlencode(...), explode('/', $path)));
            }
        }
        return '';
    }
}
