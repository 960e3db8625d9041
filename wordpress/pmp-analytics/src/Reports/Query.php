<?php

declare(strict_types=1);

namespace PMP\Analytics\Reports;

/**
 * The part of a request's query that is meant for the mesh.
 */
final class Query
{
    /** Where addresses are plain, WordPress's routes are a parameter. */
    private const ROUTE = 'rest_route';

    /**
     * Leaves out WordPress's own parameters, which begin with an underscore, and keeps repeated ones, of which PHP would keep the last.
     *
     * @param string $sent As the browser sent it.
     * @return string Sorted by name, so that equal questions are one.
     */
    public static function of(string $sent): string
    {
        $named = [];
        foreach (array_filter(explode('&', $sent), static fn (string $pair): bool => $pair !== '') as $pair) {
            [$name, $value] = array_map(urldecode(...), explode('=', $pair, 2)) + [1 => ''];
            if ($name !== self::ROUTE && ! str_starts_with($name, '_')) {
                $named[] = [$name, $value];
            }
        }
        usort($named, static fn (array $one, array $other): int => strcmp($one[0], $other[0]));
        return implode('&', array_map(static fn (array $pair): string => rawurlencode($pair[0]) . '=' . rawurlencode($pair[1]), $named));
    }
}
