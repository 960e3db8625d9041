<?php

/**
 * Template Name: Lead
 *
 * Only the free guide.
 */

declare(strict_types=1);

use PMP\Theme\LeadForm;

defined('ABSPATH') || exit;

get_header();
?>
<div class="wrapper" id="page-wrapper">
  <main class="container" id="main" data-pmp-page="lead">
    <?php while (have_posts()) : ?>
        <?php the_post(); ?>
      <h1><?php the_title(); ?></h1>
        <?php the_content(); ?>
    <?php endwhile; ?>
    <?php LeadForm::print('guide'); ?>
  </main>
</div>
<?php
get_footer();
