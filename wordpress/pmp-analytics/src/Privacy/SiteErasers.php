<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

use PMP\Analytics\Clock;

/**
 * The erasers of WordPress, of WooCommerce and of other plugins, as Tools > Erase Personal Data runs them: comments, orders,
 * customers, according to the shop's settings.
 */
final class SiteErasers
{
    public function __construct(private readonly Clock $clock)
    {
    }

    /**
     * Runs them for an e-mail address; a repeated call continues with the remaining data.
     *
     * @param float $until When to stop, in seconds since 1970.
     * @return bool False if some data remains.
     */
    public function run(string $email, float $until): bool
    {
        $erasers = (array) apply_filters('wp_privacy_personal_data_erasers', []);
        // This plugin's own has run already, and the mesh's would call the mesh, which is the caller here.
        foreach (array_diff_key($erasers, [PersonalData::ID => true, MeshData::ID => true]) as $eraser) {
            for ($page = 1, $done = false; ! $done; ++$page) {
                if ($this->clock->now() >= $until) {
                    return false;
                }
                $result = call_user_func($eraser['callback'], $email, $page);
                if (! is_array($result)) {
                    return false;
                }
                $done = (bool) ($result['done'] ?? true);
            }
        }
        return true;
    }
}
